"""Lines -> batches: the raw lines that are sent together, within the limits of `POST /v1/import`.

What is no JSON object can't be sent, and is told with its line. All else is for the endpoint to judge.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Never

from cli.importing.lines import Line, Mark, Unreadable, read_lines
from cli.importing.sources import Source
from handler.decode import MAX_BODY_BYTES, type_name
from handler.errors import InvalidEncoding, InvalidJson, MessageTooLarge, NestedTooDeeply, NotAnObject, NumberOutOfRange

MAX_BATCH_BYTES = 480_000
"""The endpoint takes 512,000, and Segment's own 500 KB; what is longer goes alone to `/segment`, which takes 1 MiB."""
DEFAULT_BATCH_MESSAGES = 500
LINES_OF_NO_MESSAGES = 1_000
"""A file that begins with so many lines, and none of them a JSON object, is another kind of file."""


@dataclass(frozen=True, kw_only=True)
class Reject:
    """A line that will never be accepted as it is; `code` is one of those of the endpoint."""

    file: str
    line: int
    code: str
    message: str


@dataclass(frozen=True)
class Message:
    """A line to send, and where it stands."""

    file: str
    line: int
    raw: bytes


@dataclass(kw_only=True)
class Batch:
    """What is sent together, and how far that brings the import, once all of it is durable.

    `rejects` are lines that are not sent, `marks` is how far each file was read, `whole` the files that end here, and
    `unreadable` those of which the rest can't be read, with the reason.
    """

    messages: list[Message] = field(default_factory=list)
    size_bytes: int = 0
    rejects: list[Reject] = field(default_factory=list)
    marks: dict[str, Mark] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)
    unreadable: dict[str, str] = field(default_factory=dict)


def batches(starts: Iterable[tuple[Source, Mark]], *, most_messages: Callable[[], int]) -> Iterator[Batch]:
    """Yield batches of the lines of files after a mark of each; a batch may hold the lines of several files.

    `most_messages` says how many messages a batch may hold at the moment.
    """
    batch = Batch()
    for source, start in starts:
        name = source.name
        batch.marks[name] = start
        is_of_messages = False
        try:
            for line in read_lines(source, start):
                raw = (line.raw or b"").strip()
                most = most_messages()
                is_full = len(batch.messages) >= most or batch.size_bytes + len(raw) > MAX_BATCH_BYTES
                if (is_full and batch.messages) or len(batch.rejects) >= most:
                    yield batch
                    batch = Batch()
                batch.marks[name] = line.mark
                reject = _why_not(name, line)
                if reject is not None:
                    batch.rejects.append(reject)
                    if not is_of_messages:
                        _check_kind(line.mark.line - start.line)
                elif raw:
                    batch.messages.append(Message(name, line.mark.line, raw))
                    batch.size_bytes += len(raw) + 1
                    is_of_messages = True
            batch.whole.add(name)
        except Unreadable as error:
            batch.unreadable[name] = str(error)
    if batch.marks:
        yield batch


def _check_kind(lines: int) -> None:
    """Raise `Unreadable` where so many lines without a message are no accident."""
    if lines >= LINES_OF_NO_MESSAGES:
        raise Unreadable(
            f"none of {LINES_OF_NO_MESSAGES:,} lines is a JSON object: messages must stand one on a line, as "
            "`jq -c .[] FILE` writes those of an array"
        )


def _why_not(name: str, line: Line) -> Reject | None:
    """Return why a line can't be sent, if so; blank ones are no matter."""
    raw = line.raw
    if raw is None or len(raw) > MAX_BODY_BYTES:
        text = f"The line is longer than {MAX_BODY_BYTES:,} bytes"
        return Reject(file=name, line=line.mark.line, code=MessageTooLarge.code, message=text)
    if not raw or raw.isspace():
        return None
    try:
        value = _DECODER.decode(raw.decode())
    except UnicodeDecodeError:
        code, text = InvalidEncoding.code, "The line is not UTF-8"
    except json.JSONDecodeError as error:
        code, text = InvalidJson.code, f"The line is not JSON (column {error.colno})"
    except ValueError as error:
        code, text = NumberOutOfRange.code, f"The line is not JSON: {error}"
    except RecursionError:
        code, text = NestedTooDeeply.code, "The line has too many objects inside each other"
    else:
        if isinstance(value, dict):
            return None
        hint = ": jq -c '.[]' FILE makes lines of it" if isinstance(value, list) else ""
        code, text = NotAnObject.code, f"The line must be one JSON object, not {type_name(value)}{hint}"
    return Reject(file=name, line=line.mark.line, code=code, message=text)


def _refuse_constant(name: str) -> Never:
    raise ValueError(f"{name} is no number")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
