"""Read lines from plain or gzip files (RFC 1952, recognised by its magic number), in constant memory."""

import hashlib
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from destination.importing.sources import InputFile
from handler.decode import MAX_BODY_BYTES

CHUNK_BYTES = 256 * 1024
BEGINNING_BYTES = 16
GZIP_MAGIC = b"\x1f\x8b"
GZIP_WBITS = 16 + zlib.MAX_WBITS
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class UnreadableFile(Exception):
    """A file that can't be read to its end; the text says why."""


class Position(NamedTuple):
    """A place between two lines: the unpacked bytes and lines before it, and the bytes read from the file itself.

    `head` is a hash of the first line, which identifies standard input.
    """

    offset: int = 0
    line: int = 0
    position: int = 0
    head: str = ""


class InputLine(NamedTuple):
    """A line without its end, whose number is `mark.line`, and the beginning of the next one.

    If it is longer than any message may be, `raw` is None. `beginning` has the first bytes of any line.
    """

    raw: bytes | None
    mark: Position
    beginning: bytes


def read_lines(source: InputFile, start: Position) -> Iterator[InputLine]:
    """Yield the lines after a mark; raises `Unreadable`."""
    try:
        with source.open() as file:
            yield from _Lines(file).after(start, may_seek=not source.is_stream)
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableFile(str(error)) from error


class _Lines:
    def __init__(self, file: Any) -> None:  # noqa: ANN401 -- a raw file, or an object in place of standard input
        self._file = file
        self._position = 0

    def after(self, start: Position, *, may_seek: bool) -> Iterator[InputLine]:
        chunks = self._chunks()
        head = b""
        while len(head) < len(GZIP_MAGIC) and (chunk := next(chunks, b"")):
            head += chunk
        if head == b"" and start.offset:
            raise EOFError("it is empty now")
        if may_seek and start.offset and not head.startswith(GZIP_MAGIC):
            self._position = self._file.seek(start.offset)
            yield from self._split(chunks, start)
            return
        all_chunks = _chained(head, chunks)
        unpacked = _unpack(all_chunks) if head.startswith(GZIP_MAGIC) else all_chunks
        mark = Position()
        for line in self._split(unpacked, mark):
            mark = line.mark
            if start.offset and mark.head != start.head:
                raise EOFError("it does not begin like the input that was imported before: is it another input?")
            if mark.offset > start.offset:
                yield line
        if mark.offset < start.offset:
            raise EOFError(f"it ends after {mark.offset:,} bytes, but {start.offset:,} bytes were imported before")

    def _chunks(self) -> Iterator[bytes]:
        while chunk := self._file.read(CHUNK_BYTES):
            self._position += len(chunk)
            yield chunk
        if chunk is None:  # not the end of the file
            raise BlockingIOError("it is a non-blocking file, which can't be read to its end")

    def _split(self, chunks: Iterator[bytes], start: Position) -> Iterator[InputLine]:
        """Yield lines, beginning at a mark; a line that is too long for a message is counted, not kept."""
        offset, number, _, head = start
        rest, dropped, beginning = b"", 0, b""
        for chunk in chunks:
            *ends, rest = (rest + chunk).split(b"\n")
            for end in ends:
                offset += dropped + len(end) + 1
                number += 1
                raw, beginning = (None, beginning) if dropped else (end, end[:BEGINNING_BYTES])
                dropped = 0
                if number == 1:
                    raw, head = _first(raw)
                yield InputLine(raw, Position(offset, number, self._position, head), beginning)
            if dropped or len(rest) > MAX_BODY_BYTES:
                beginning = beginning if dropped else rest[:BEGINNING_BYTES]
                dropped += len(rest)
                rest = b""
        if rest or dropped:
            offset += dropped + len(rest)
            raw, beginning = (None, beginning) if dropped else (rest, rest[:BEGINNING_BYTES])
            if not number:
                raw, head = _first(raw)
            yield InputLine(raw, Position(offset, number + 1, self._position, head), beginning)


def _first(raw: bytes | None) -> tuple[bytes | None, str]:
    """Return the first line without a byte order mark, and its hash."""
    raw = raw and raw.removeprefix(BYTE_ORDER_MARK)
    return raw, hashlib.sha256(raw or b"").hexdigest()[:16]


def _chained(head: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from chunks


def _unpack(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Unpack gzip members, at most `CHUNK_BYTES` at once; raises `EOFError` and `zlib.error`."""
    member = zlib.decompressobj(GZIP_WBITS)
    for packed in chunks:
        left = packed
        while left:
            if member.eof:
                left = left.lstrip(b"\0")  # padding of tapes and disks
                if not left:
                    break
                member = zlib.decompressobj(GZIP_WBITS)
            yield member.decompress(left, CHUNK_BYTES)
            left = member.unused_data if member.eof else member.unconsumed_tail
    while not member.eof:
        piece = member.decompress(b"", CHUNK_BYTES)
        if not piece:
            raise EOFError("it ends too early: the gzip file is incomplete")
        yield piece
