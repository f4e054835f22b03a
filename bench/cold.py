"""*cold*: what the first request to a new Lambda environment waits for, beside a function that does nothing but put.

Each package runs under Lambda's runtime interface emulator, with Lambda's own runtime client, on the Python of the
function's runtime, and talks TLS to the store. Counted are

- *init*: the emulator's `INIT REPORT`: from starting the interpreter until the runtime asks for its first event;
- *first request*: the emulator's `INVOKE RTDONE`: from handing out the event until its answer is there; the first
  connection to the store is made in it;
- *total*: both;
- *processor*: user and system time of the runtime process for both, which a busy machine disturbs less.

Packages are what their builds leave, and once more with their modules compiled (`.pyc`), because that alone decides
more than all else. As in Lambda no run leaves compiled modules behind. So that each package trusts the store, its
authority is added to the certificates that the package itself brings: what they cost is counted. All take turns in
each repetition; a ratio is that of two totals of the same repetition.
"""

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.emulator import ColdStart, Emulator, find_emulator
from bench.figures import FOLDER, Options, Row, Table, median
from bench.lambda_environment import destination_environment, peer_environment
from bench.packages import (
    BARE_PUT,
    CANONICAL,
    CANONICAL_JSONSCHEMA,
    compile_package,
    destination_package,
    is_compiled,
    peer_package,
    size_bytes,
    zipped_bytes,
)
from bench.pythons import lambda_python, runtime_python
from bench.samples import ACCEPTED, Sample
from bench.store_server import StoreServer
from bench.subjects import Code, Subject
from destination.console import progress

REPETITIONS = 12
QUICK_REPETITIONS = 2

COMPILED = ", .pyc"
BARE = BARE_PUT.name
BARE_COMPILED = BARE + COMPILED
PEERS = (BARE_PUT, CANONICAL, CANONICAL_JSONSCHEMA)
MEGABYTE = 1_000_000
ANSWERED = Sample(event=ACCEPTED.event, status=200)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A package, and the function in it."""

    name: str
    package: Path
    target: str
    environment: Mapping[str, str]


def measure(options: Options) -> list[Table]:
    """Measure; raises `NotRunError` where the emulator or the runtime's Python is missing."""
    path = find_emulator()
    python = lambda_python(options)
    emulator = Emulator(path=path, python=runtime_python(python))
    repetitions = QUICK_REPETITIONS if options.quick else REPETITIONS
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder, StoreServer(tls=True) as store:
        variants = list(_variants(options, store.url, python, Path(folder)))
        sizes = _sizes(variants)
        for variant in variants:
            _trust(variant.package, store.authority or b"")
        subjects = [
            Subject(
                name=variant.name,
                code=Code(folders=(variant.package,), target=variant.target),
                environment=variant.environment,
                sample=ANSWERED,
            )
            for variant in variants
        ]
        starts: dict[str, list[ColdStart]] = defaultdict(list)
        log = Path(folder) / "log"
        with progress("cold", total=(repetitions + 1) * len(subjects)) as advance:
            for repetition in range(repetitions + 1):
                for subject in subjects if repetition % 2 else reversed(subjects):
                    start = emulator.cold_start(subject, store_url=store.url, number=repetition, log=log)
                    if repetition:  # the first one brings the files into memory
                        starts[subject.name].append(start)
                    advance()
    times = Table(
        name="cold",
        title=f"Cold start in milliseconds; medians of {repetitions}",
        rows=tuple(_row(variant.name, starts) for variant in variants),
        bar="total",
        notes=("The ratios divide totals, and in the last column processor times.",),
    )
    return [times, sizes]


def _variants(options: Options, store_url: str, python: Path, folder: Path) -> Iterator[Variant]:
    """Yield copies of all packages as they are, and compiled ones of those that are not."""
    ours = destination_environment(store_url=store_url, overrides={})
    packages = [
        *((peer.name, peer_package(peer), "app:lambda_handler", None) for peer in PEERS),
        ("destination", destination_package(options), "handler.app:lambda_handler", ours),
    ]
    for name, package, target, environment in packages:
        has_compiled = is_compiled(package)
        for compiled in (True,) if has_compiled else (False, True):
            copy = folder / f"{name.replace(' ', '-')}{COMPILED * compiled}"
            shutil.copytree(package, copy)
            if compiled and not has_compiled:
                compile_package(copy, python)
            yield Variant(
                name=name + COMPILED * compiled,
                package=copy,
                target=target,
                environment=environment or peer_environment(copy / "schemas"),
            )


def _trust(package: Path, authority: bytes) -> None:
    """Add an authority to all certificates of a package."""
    for path in package.rglob("*.pem"):
        path.write_bytes(path.read_bytes().rstrip() + b"\n" + authority)


def _row(name: str, starts: Mapping[str, list[ColdStart]]) -> Row:
    own = starts[name]

    def ratio(figure: str, other: str) -> float:
        pairs = zip(own, starts[other], strict=True)
        return median(getattr(start, figure) / getattr(reference, figure) for start, reference in pairs)

    return Row(
        name=name,
        figures={
            figure.replace("_", " "): median(getattr(start, figure) for start in own)
            for figure in ("init", "first_request", "total", "processor")
        },
        ratios={
            f"/ {BARE}": ratio("total", BARE),
            f"/ {BARE_COMPILED}": ratio("total", BARE_COMPILED),
            f"processor / {BARE_COMPILED}": ratio("processor", BARE_COMPILED),
        },
    )


def _sizes(variants: Iterable[Variant]) -> Table:
    sizes = {variant.name: (size_bytes(variant.package), zipped_bytes(variant.package)) for variant in variants}
    return Table(
        name="sizes",
        title="Size of the packages in millions of bytes",
        rows=tuple(
            Row(
                name=name,
                figures={"unpacked": round(unpacked / MEGABYTE, 2), "zipped": round(zipped / MEGABYTE, 2)},
                ratios={f"zipped / {BARE}": median([zipped / sizes[BARE][1]])},
            )
            for name, (unpacked, zipped) in sizes.items()
        ),
        bar="zipped",
        notes=("The destination holds compiled parts for both processors of Lambda, the others for this one.",),
    )
