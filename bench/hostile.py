"""*hostile*: the processor time of bodies that are made to cost much, against plain JSON of the same size.

Before the API key is known, a body is decoded and searched for a write key. After that, a message is canonicalised.
"""

import base64
import gzip
import itertools
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

from bench.figures import Options, Row, Table, median
from destination.console import progress
from handler.canonicalise import canonicalise, names_write_key, write_key_of
from handler.decode import decode_batch, decode_body
from handler.errors import Refusal

BODY_BYTES = 500 * 1024
ROUNDS = 7
QUICK_ROUNDS = 3
PLAIN = "plain: messages"
MESSAGE = (
    '{"type":"track","event":"Lamp Lit","userId":"keeper-17","properties":{"price":39.9,"list":["a","b"],"count":17}}'
)
MILLISECONDS = "ms before the key is known"
MILLISECONDS_AFTER = "ms after that"
FNAME, FCOMMENT, FEXTRA = 8, 16, 4
"""Flags of a gzip header: https://www.rfc-editor.org/rfc/rfc1952#section-2.3.1"""


def bodies(size: int) -> Mapping[str, tuple[str, bool]]:
    """Return bodies of about a size in bytes, and whether each is in base64."""
    texts = {
        PLAIN: _filled('{"batch":[', MESSAGE + ",", MESSAGE + "]}", size),
        "plain: one string": _filled('{"x":"', "x", '"}', size),
        "escapes": _filled('{"x":"', "\\n", '"}', size),
        "member names": _joined("{", (f'"{number:x}":0' for number in itertools.count()), size),
        "duplicate member names": _filled("{", '"userId":0,', '"x":0}', size),
        "spellings of writeKey": _joined("{", (f'"{name}":""' for name in spellings("writekey")), size),
        "spellings of userId": _joined("{", (f'"{name}":0' for name in spellings("userid")), size),
        "spellings of context": _joined("{", (f'"{name}":{{"a":1}}' for name in spellings("context")), size),
        "spellings in context": _joined('{"context":{', (f'"{name}":0' for name in spellings("useragent")), size, "}}"),
        "integers": _filled('{"x":[', "1,", "0]}", size),
        "fractions": _filled('{"x":[', "1e-300,", "0]}", size),
        "a long integer": _filled('{"x":', "9", "}", size),
        "NaN": _filled('{"batch":[{"x":[', "NaN,", "0]}]}", size),
        "empty arrays": _filled('{"x":[', "[],", "0]}", size),
        "arrays 90 deep": _filled('{"x":[', "[" * 90 + "]" * 90 + ",", "0]}", size),
        "arrays without end": "[" * size,
        "a batch of one deep array": '{"batch":[' + "[" * (size // 2 - 6) + "]" * (size // 2 - 6) + "]}",
        "a batch of deep arrays": _filled('{"batch":[', "[" * 3000 + "]" * 3000 + ",", "0]}", size),
        "many batches of what is not JSON": _filled("{", '"batch":[' + "x," * 2499 + "x],", '"batch":[]}', size),
        "many spellings of batch": _joined(
            "{", (f'"{name}":[' + "x," * 79 + "x]" for name in spellings("batch")), size
        ),
        "a batch of what is not JSON": _filled('{"batch":[', "[" + "x" * 200 + "],", "0]}", size),
    }
    members = {
        "gzip: empty members": gzip.compress(b"", mtime=0) * (size // 20),
        "gzip: a long file name": _member(FNAME, b"n" * size + b"\0"),
        "gzip: a long comment": _member(FCOMMENT, b"c" * size + b"\0"),
        "gzip: a long file name without end": _member(FNAME, b"n" * size)[: size - 64],
        "gzip: extra fields": _member(FEXTRA, b"\xff\xff" + b"e" * 0xFFFF) * (size // 0x10000),
        "gzip: zeros after it": gzip.compress(b"{}") + b"\0" * size,
        "gzip: zeros between members": gzip.compress(b"{") + b"\0" * size + gzip.compress(b"}"),
        "gzip: a bomb": gzip.compress(b" " * 100 * size),
    }
    compressed = {name: base64.b64encode(octets[:size]).decode() for name, octets in members.items()}
    return {name: (text, False) for name, text in texts.items()} | {
        name: (text, True) for name, text in compressed.items()
    }


def spellings(letters: str) -> Iterator[str]:
    """Yield spellings of one field."""
    for separators in itertools.product(("", "_", "-", " "), repeat=len(letters)):
        yield "".join(map("".join, zip(letters, separators, strict=True)))


def before_key(body: str, *, is_base64: bool) -> None:
    """Do what a request to a library's route costs before its key is known."""
    for decode in (decode_body, decode_batch):
        with suppress(Refusal):
            write_key_of(decode(body, is_base64=is_base64))


def after_key(body: str, *, is_base64: bool) -> None:
    """Do what a message with a valid key costs, without a schema and a store."""
    with suppress(Refusal):
        payload = decode_body(body, is_base64=is_base64)
        canonicalise(payload)
        if not is_base64:
            names_write_key(body)


def measure(options: Options) -> list[Table]:
    """Measure each body."""
    samples = bodies(BODY_BYTES)
    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    rows = []
    with progress("hostile", total=len(samples)) as advance:
        plain = [_milliseconds(step, *samples[PLAIN], rounds=rounds) for step in (before_key, after_key)]
        for name, sample in samples.items():
            took = [_milliseconds(step, *sample, rounds=rounds) for step in (before_key, after_key)]
            rows.append(
                Row(
                    name=name,
                    figures={MILLISECONDS: took[0], MILLISECONDS_AFTER: took[1]},
                    ratios={"/ plain": median([took[0] / plain[0]]), "after, / plain": median([took[1] / plain[1]])},
                )
            )
            advance()
    return [
        Table(
            name="hostile",
            title=f"Bodies of {BODY_BYTES // 1024} KB, decoded as a single message and as a batch",
            rows=tuple(rows),
            bar=MILLISECONDS,
        )
    ]


def _milliseconds(step: Callable[..., None], body: str, is_base64: bool, *, rounds: int) -> float:  # noqa: FBT001
    """Return the least processor time of some rounds."""
    took = []
    for _ in range(rounds):
        began = time.process_time()
        step(body, is_base64=is_base64)
        took.append(time.process_time() - began)
    return median([min(took) * 1e3])


def _filled(begin: str, unit: str, end: str, size: int) -> str:
    return begin + unit * ((size - len(begin) - len(end)) // len(unit)) + end


def _joined(begin: str, members: Iterator[str], size: int, end: str = "}") -> str:
    chosen, length = [], len(begin)
    for member in members:
        length += len(member) + 1
        if length > size - len(end):
            break
        chosen.append(member)
    return begin + ",".join(chosen) + end


def _member(flags: int, header: bytes, content: bytes = b"{}") -> bytes:
    """Return a gzip member with more in its header."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = packer.compress(content) + packer.flush()
    trailer = zlib.crc32(content).to_bytes(4, "little") + len(content).to_bytes(4, "little")
    return b"\x1f\x8b\x08" + bytes([flags]) + b"\0" * 4 + b"\0\xff" + header + packed + trailer
