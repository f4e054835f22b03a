"""Measure bodies that are made to cost much processor time, against plain JSON of the same size.

Before the API key is known, anybody can send them: a body is decoded as a single message and as a batch, and searched
for a write key. After that, a message is canonicalised.
"""

import base64
import gzip
import itertools
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial

from bench.figures import Options, Table, take_turns
from handler.canonicalise import canonicalise, names_write_key, write_key_of
from handler.decode import decode_batch, decode_body
from handler.errors import Refusal

BODY_BYTES = 500 * 1024
ROUNDS, QUICK_ROUNDS = 7, 3
PLAIN = "plain: messages"
MESSAGE = (
    '{"type":"track","event":"Lamp Lit","userId":"keeper-17","properties":{"price":39.9,"list":["a","b"],"count":17}}'
)
FNAME, FCOMMENT, FEXTRA = 8, 16, 4
"""Flags of a gzip header: https://www.rfc-editor.org/rfc/rfc1952#section-2.3.1"""


def bodies(size: int) -> Mapping[str, tuple[str, bool]]:
    """Return bodies of about this size in bytes, and whether each is in Base64."""
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
        "many batches of invalid JSON": _filled("{", '"batch":[' + "x," * 2499 + "x],", '"batch":[]}', size),
        "many spellings of batch": _joined(
            "{", (f'"{name}":[' + "x," * 79 + "x]" for name in spellings("batch")), size
        ),
        "a batch of invalid JSON": _filled('{"batch":[', "[" + "x" * 200 + "],", "0]}", size),
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
    """Do the work for a request to a library's route before its key is known."""
    for decode in (decode_body, decode_batch):
        with suppress(Refusal):
            write_key_of(decode(body, is_base64=is_base64))


def after_key(body: str, *, is_base64: bool) -> None:
    """Do the work for a message with a valid key, without a schema and a store."""
    with suppress(Refusal):
        payload = decode_body(body, is_base64=is_base64)
        canonicalise(payload)
        if not is_base64:
            names_write_key(body)


STEPS = {"before": before_key, "after": after_key}


def measure(options: Options) -> list[Table]:
    """Measure each body; the least processor time of some rounds counts."""
    runs = {name: partial(_milliseconds, *body) for name, body in bodies(BODY_BYTES).items()}
    times = take_turns("hostile", runs, QUICK_ROUNDS if options.quick else ROUNDS)
    least = {name: [min(column) for column in zip(*tooks, strict=True)] for name, tooks in times.items()}
    rows = {
        name: {
            **dict(zip(STEPS, took, strict=True)),
            **{f"{step} / plain": own / plain for step, own, plain in zip(STEPS, took, least[PLAIN], strict=True)},
        }
        for name, took in least.items()
    }
    title = f"Milliseconds for bodies of {BODY_BYTES // 1024} KB, before and after the API key is known"
    return [Table(name="hostile", title=title, rows=rows)]


def _milliseconds(body: str, is_base64: bool, _: int) -> list[float]:  # noqa: FBT001 -- an argument of `partial`
    """Return the processor time of each step."""
    times = [time.process_time()]
    for step in STEPS.values():
        step(body, is_base64=is_base64)
        times.append(time.process_time())
    return [1000 * (end - start) for start, end in itertools.pairwise(times)]


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
