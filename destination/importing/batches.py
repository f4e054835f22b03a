"""Group lines into batches: raw lines that are sent together, within the limits of `POST /v1/import`.

A line that is not a JSON object, or whose time can't be read, is not sent and becomes a reject. The endpoint judges
everything else.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Never

from destination.importing.lines import BYTE_ORDER_MARK, InputLine, Position, UnreadableFile, read_lines
from destination.importing.sources import InputFile
from destination.importing.times import read_times
from handler.decode import MAX_BODY_BYTES, JsonObject, type_name
from handler.errors import InvalidEncoding, InvalidJson, MessageTooLarge, NestedTooDeeply, NotAnObject, NumberOutOfRange

MAX_BATCH_BYTES = 480_000
"""The endpoint accepts 512,000, like Segment's 500 KB. A longer line is sent alone to `/segment`, which accepts 1
MiB."""
DEFAULT_BATCH_MESSAGES = 500
LINES_OF_NO_MESSAGES = 1_000
"""A file that begins with this many lines without a JSON object is another kind of file."""
ARRAY_HINT = "jq -c '.[]' FILE makes lines of it"
UNREADABLE_TIME = "unreadable_time"
SHOWN_CHARS = 40


class _NotSent(Exception):
    """The reason why a line is not sent."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, kw_only=True)
class RejectedLine:
    """A line that will never be accepted unchanged; `code` is one of the endpoint's."""

    file: str
    line: int
    code: str
    message: str


@dataclass(frozen=True)
class ImportedMessage:
    """A line to send, with its place.

    `rewritten` describes a time that is sent in another form than in the file. `is_dated` says whether the message has
    a time.
    """

    file: str
    line: int
    raw: bytes
    rewritten: str | None = None
    is_dated: bool = True


@dataclass(kw_only=True)
class ImportBatch:
    """Messages that are sent together, and the progress of the import once all of them are durable.

    `rejects` are lines that are not sent, and `blank` counts lines without a message. `marks` has the place reached in
    each file. `whole` lists the files that end here. `unreadable` lists files whose rest can't be read, with the
    reason.
    """

    messages: list[ImportedMessage] = field(default_factory=list)
    size_bytes: int = 0
    rejects: list[RejectedLine] = field(default_factory=list)
    blank: int = 0
    marks: dict[str, Position] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)
    unreadable: dict[str, str] = field(default_factory=dict)


def batches(starts: Iterable[tuple[InputFile, Position]], *, most_messages: Callable[[], int]) -> Iterator[ImportBatch]:
    """Yield batches of the lines of files, each after a mark; a batch may have lines of several files.

    `most_messages` returns the current limit for the messages of a batch.
    """
    batch = ImportBatch()
    for source, start in starts:
        name = source.name
        batch.marks[name] = start
        is_begun = is_of_messages = False
        try:
            for line in read_lines(source, start):
                found = _read(name, line)
                if isinstance(found, RejectedLine) and not start.line and not is_begun:
                    _check_beginning(line)
                is_begun = is_begun or found is not None
                size_bytes = len(found.raw) if isinstance(found, ImportedMessage) else 0
                most = most_messages()
                is_full = len(batch.messages) >= most or batch.size_bytes + size_bytes > MAX_BATCH_BYTES
                if (is_full and batch.messages) or len(batch.rejects) >= most:
                    yield batch
                    batch = ImportBatch()
                batch.marks[name] = line.mark
                if isinstance(found, RejectedLine):
                    batch.rejects.append(found)
                    is_of_messages = is_of_messages or found.code == UNREADABLE_TIME
                    if not is_of_messages:
                        _check_kind(line.mark.line - start.line)
                elif found is None:
                    batch.blank += 1
                else:
                    batch.messages.append(found)
                    batch.size_bytes += size_bytes + 1
                    is_of_messages = True
            batch.whole.add(name)
        except UnreadableFile as error:
            batch.unreadable[name] = str(error)
    if batch.marks:
        yield batch


def _check_beginning(line: InputLine) -> None:
    """Raise `Unreadable` if the first line that is not blank begins a JSON value that can't be read line by line."""
    beginning = line.beginning.removeprefix(BYTE_ORDER_MARK).strip()
    if beginning.startswith(b"[") and not _is_json(line.raw):
        raise UnreadableFile(f"it is a JSON array: {ARRAY_HINT}")
    if beginning == b"{":
        raise UnreadableFile("its messages are spread over several lines: jq -c . FILE writes each on one line")


def _check_kind(lines: int) -> None:
    """Raise `Unreadable` if there are too many lines without a message to be an accident."""
    if lines >= LINES_OF_NO_MESSAGES:
        raise UnreadableFile(
            f"none of {LINES_OF_NO_MESSAGES:,} lines is a JSON object. If it is an array, {ARRAY_HINT}"
        )


def _read(name: str, line: InputLine) -> ImportedMessage | RejectedLine | None:
    """Return the content of a line: a message to send, the reason why it can't be sent, or None if it is blank."""
    raw = None if line.raw is None else line.raw.strip()
    if raw == b"":
        return None
    try:
        return _message(name, line.mark.line, *_decode(raw))
    except _NotSent as error:
        return RejectedLine(file=name, line=line.mark.line, code=error.code, message=str(error))


def _decode(raw: bytes | None) -> tuple[bytes, JsonObject]:
    """Return a line with its message; raises `_NotSent`."""
    if raw is None or len(raw) > MAX_BODY_BYTES:
        raise _NotSent(MessageTooLarge.code, f"The line is longer than {MAX_BODY_BYTES:,} bytes")
    try:
        value = _DECODER.decode(raw.decode())
    except UnicodeDecodeError as error:
        raise _NotSent(InvalidEncoding.code, "The line is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise _NotSent(InvalidJson.code, f"The line is not JSON (column {error.colno})") from error
    except ValueError as error:
        raise _NotSent(NumberOutOfRange.code, f"The line is not JSON: {error}") from error
    except RecursionError as error:
        raise _NotSent(NestedTooDeeply.code, "The line is nested too deeply") from error
    if not isinstance(value, dict):
        hint = f": {ARRAY_HINT}" if isinstance(value, list) else ""
        raise _NotSent(NotAnObject.code, f"The line must be one JSON object, not {type_name(value)}{hint}")
    return raw, value


def _message(name: str, number: int, raw: bytes, value: JsonObject) -> ImportedMessage:
    """Return a message with times that the endpoint can read; raises `_NotSent`."""
    times = read_times(value)
    if times.unreadable is not None:
        raise _NotSent(UNREADABLE_TIME, f"{times.unreadable} is not a time that can be read: write it in ISO 8601")
    rewritten = None
    for field_name, time in times.rewritten.items():
        # If a name is repeated, the last value counts, so the rest of the line stays as it is.
        raw = raw[:-1] + f",{json.dumps(field_name)}:{json.dumps(time)}}}".encode()
        rewritten = rewritten or f"{str(value[field_name])[:SHOWN_CHARS]} is {time}"
    return ImportedMessage(name, number, raw, rewritten, times.is_dated)


def _is_json(raw: bytes | None) -> bool:
    try:
        _DECODER.decode((raw or b"").strip().decode())
    except (ValueError, RecursionError):
        return False
    return True


def _refuse_constant(name: str) -> Never:
    raise ValueError(f"{name} is not a number")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
