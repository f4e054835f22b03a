"""Measure how long the first request to a new Lambda environment waits, and the size of the packages.

The built destination runs under Lambda's own runtime client, compared with functions that do nothing but put, and with
functions as the documentation of Powertools shows them. "init" lasts from the start of the interpreter until the
runtime asks for an event; "first request" includes the first connection to the store, by TLS; "processor" is the
processor time of both.

Compiled modules (.pyc) decide more than anything else, so each peer is measured without and with them. As in Lambda, no
run leaves compiled modules behind. Each package trusts the store by the certificates that the package itself contains.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from bench.figures import FOLDER, Options, Table, median, median_ratio, take_turns
from bench.packages import (
    destination_package,
    lambda_python,
    peer_package,
    runtime_python,
    size_bytes,
    zipped_bytes,
)
from bench.runtime import ColdStart, cold_start
from bench.samples import ACCEPTED
from bench.store_server import StoreServer
from bench.subjects import BARE, CLIENT, PEER_FOLDERS, TRIMMED, Codes, Subject, destination, peer
from destination.artifact import compile_with

ROUNDS, QUICK_ROUNDS = 12, 2
COMPILED = ", .pyc"
MEGABYTE = 1_000_000


def measure(options: Options) -> list[Table]:
    """Measure; raises `NotRunError` if the runtime's Python is missing."""
    python = lambda_python(options)
    runtime = runtime_python(python)
    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder, StoreServer(tls=True) as store:
        subjects = list(_subjects(options, store, python, Path(folder)))
        packages = {subject.name: subject.code.folders[-1] for subject in subjects}
        sizes = {name: (size_bytes(package), zipped_bytes(package)) for name, package in packages.items()}
        for certificates in Path(folder).rglob("*.pem"):
            certificates.write_bytes(certificates.read_bytes().rstrip() + b"\n" + (store.authority or b""))
        log = Path(folder) / "log"
        runs = {subject.name: partial(cold_start, runtime, subject, store.url, log) for subject in subjects}
        starts = take_turns("cold", runs, rounds)
    times = Table(
        name="cold",
        title=f"Cold start in milliseconds; medians of {rounds} rounds",
        rows={name: _row(own, starts) for name, own in starts.items()},
    )
    return [times, _sizes(sizes)]


def _subjects(options: Options, store: StoreServer, python: Path, folder: Path) -> Iterator[Subject]:
    """Yield a function for each package, in a copy; peers once more with compiled modules."""

    def copied(name: str, package: Path) -> Path:
        return Path(shutil.copytree(package, folder / name.replace(" ", "-")))

    names = [name + suffix for name in PEER_FOLDERS for suffix in ("", COMPILED)]
    packages = {name: copied(name, peer_package(name.removesuffix(COMPILED))) for name in names}
    for name, package in packages.items():
        if name.endswith(COMPILED):
            compile_with(python, package)
    ours = copied("destination", destination_package(options))
    codes = Codes.of(ours, {name: (package,) for name, package in packages.items()})
    yield from (peer(name, code) for name, code in codes.peers.items())
    yield peer(TRIMMED, codes.trimmed)
    yield peer(CLIENT, codes.client)
    yield destination(f"destination{COMPILED}", codes.destination, store, ACCEPTED)


def _row(own: Sequence[ColdStart], starts: Mapping[str, Sequence[ColdStart]]) -> dict[str, float]:
    def ratio(figure: str, reference: str) -> float:
        return median_ratio(*((getattr(start, figure) for start in each) for each in (own, starts[reference])))

    return {
        "init": median(start.init for start in own),
        "first request": median(start.first_request for start in own),
        "total": median(start.total for start in own),
        "processor": median(start.processor for start in own),
        **{f"/ {reference}": ratio("total", reference) for reference in (BARE + COMPILED, TRIMMED)},
        **{f"processor / {reference}": ratio("processor", reference) for reference in (BARE + COMPILED, TRIMMED)},
    }


def _sizes(sizes: dict[str, tuple[int, int]]) -> Table:
    return Table(
        name="sizes",
        title="Size of the packages in millions of bytes",
        rows={
            name: {
                "unpacked": unpacked / MEGABYTE,
                "zipped": zipped / MEGABYTE,
                f"zipped / {BARE}": zipped / sizes[BARE][1],
            }
            for name, (unpacked, zipped) in sizes.items()
        },
        notes=("The destination holds compiled parts for both processors of Lambda, the others for this one.",),
    )
