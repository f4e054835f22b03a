"""Step 2: decode the body to one JSON object (RFC 8259), within limits; the settings header too (JSON in base64).

A body may be compressed by gzip (RFC 1952). Its first bytes show this, because no JSON text begins with them. A byte
order mark is ignored, as RFC 8259 (section 8.1) allows.

A batch is parsed as a whole if possible. If not, its messages are located by their brackets and parsed one by one, so
that an invalid message does not affect the others. No body costs much more time than plain JSON of the same size,
because this code runs before the API key is known: `bench/hostile.py` measures it.

If a name is repeated in an object, the last value counts. Integers are exact, fractions are IEEE 754 doubles. A number
beyond the range of a double is refused, because most readers of the stored message would read it as Infinity.
"""

import base64
import binascii
import json
import zlib
from contextlib import suppress
from math import isfinite, isinf
from typing import Any, Never

from handler.errors import (
    BatchTooLarge,
    InvalidEncoding,
    InvalidJson,
    InvalidSettings,
    MessageTooLarge,
    NestedTooDeeply,
    NotAnObject,
    NumberOutOfRange,
    Refusal,
    Violation,
)
from handler.spec import BATCH
from handler.split import MAX_PIECES, CanNotSplitError, Outline, depth, may_hide_messages

JsonObject = dict[str, Any]
"""A JSON object as Python's `json` reads it."""

MAX_BODY_BYTES = 1024 * 1024
"""Segment limits an incoming call to 32 KB and then adds fields; reverse-ETL records reach 512 KiB."""
MAX_BATCH_BYTES = 500 * 1024
"""https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/#batch"""
MAX_SETTINGS_BYTES = 8 * 1024
"""API Gateway limits all request headers together to 10,240 bytes."""
MAX_NESTING = 100
"""Levels of nested objects and arrays. Segment documents no limit; real messages have fewer than ten."""
MAX_INTEGER_DIGITS = 308
"""The largest double has 309 digits, so an integer with fewer digits is always in range."""

MAX_GZIP_MEMBERS = 100
"""Senders write one member. A block compressor writes one for each 64 KB. Each member costs as much time as some KB of
data."""

_GZIP_BEGINS = b"\x1f\x8b"
_GZIP_WBITS = 16 + zlib.MAX_WBITS
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_INVALID_GZIP = "Request body is not valid gzip"

_CONTAINERS = frozenset((dict, list))
_TYPE_NAMES = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}


def type_name(value: object) -> str:
    """Return the JSON type of a value with its article: `an object`, `a number`, `null`."""
    return _TYPE_NAMES.get(type(value), "a number")


def decode_body(body: str, *, is_base64: bool = False) -> JsonObject:
    """Return the JSON object in a request body; raises a `Refusal` with status 400 for anything else."""
    return parse_body(decode_text(body, is_base64=is_base64))


def parse_body(text: str) -> JsonObject:
    """Return the JSON object in the text of a request body; raises a `Refusal` with status 400."""
    return _object(_loads(text))


def _object(value: object) -> JsonObject:
    if not isinstance(value, dict):
        raise NotAnObject(f"Request body must be one JSON object, not {type_name(value)}")
    return value


def decode_batch(body: str, *, is_base64: bool = False) -> JsonObject:
    """Return the JSON object in the body of a batch; raises a `Refusal` with status 400 for anything else.

    If all values are valid, the object is a `CheckedBatch`. Otherwise a message that can't be parsed is represented by
    its `Refusal`, and `check_values` has to check the others.
    """
    try:
        text = decode_text(body, is_base64=is_base64, max_bytes=MAX_BATCH_BYTES)
    except MessageTooLarge as error:
        raise BatchTooLarge(str(error)) from error
    with suppress(Refusal):
        return CheckedBatch(_object(_loads(text)))
    try:
        batch = _parse(text, _LENIENT_DECODER)
    except (InvalidJson, NestedTooDeeply):
        with suppress(CanNotSplitError, InvalidJson):
            return _parse_messages(text)
        raise
    return _object(batch)


class CheckedBatch(dict[str, Any]):
    """The object in the body of a batch, without values that `check_values` would refuse."""


def check_values(value: object) -> None:
    """Raise `NestedTooDeeply` or `NumberOutOfRange` for values that `decode_batch` let through."""
    is_finite = True
    level: list[Any] = [value]
    for _ in range(MAX_NESTING + 1):
        level = [container for container in level if type(container) in _CONTAINERS]
        if not level:
            break
        level = [
            child for container in level for child in (container.values() if type(container) is dict else container)
        ]
        is_finite = is_finite and all(map(isfinite, [child for child in level if type(child) is float]))
    else:
        raise NestedTooDeeply
    if not is_finite:
        raise NumberOutOfRange("A number is NaN, infinite or out of range")


def decode_text(body: str, *, is_base64: bool, max_bytes: int = MAX_BODY_BYTES) -> str:
    """Return a request body as text; raises `InvalidEncoding` or `MessageTooLarge`."""
    try:
        octets = base64.b64decode(body, validate=True) if is_base64 else body.encode("utf-8", "surrogatepass")
    except (binascii.Error, ValueError) as error:
        raise InvalidEncoding("Request body is not valid base64") from error
    if octets.startswith(_GZIP_BEGINS) and len(octets) <= max_bytes:
        octets = _decompress(octets, max_bytes + 1)
    if len(octets) > max_bytes:
        raise MessageTooLarge(f"Request body is larger than {max_bytes:,} bytes")
    try:
        return octets.removeprefix(_BYTE_ORDER_MARK).decode()
    except UnicodeDecodeError as error:
        raise InvalidEncoding from error


def _decompress(octets: bytes, max_bytes: int) -> bytes:
    """Decompress gzip members, with zeros after each, up to a maximum size; raises `InvalidEncoding`."""
    content = b""
    for _ in range(MAX_GZIP_MEMBERS):
        member = zlib.decompressobj(_GZIP_WBITS)
        try:
            content += member.decompress(octets, max_bytes - len(content))
        except zlib.error as error:
            raise InvalidEncoding(_INVALID_GZIP) from error
        if len(content) == max_bytes:
            return content
        if not member.eof:
            raise InvalidEncoding(_INVALID_GZIP)
        octets = member.unused_data.lstrip(b"\0")
        if not octets:
            return content
    raise InvalidEncoding(f"Request body has more than {MAX_GZIP_MEMBERS} gzip members")


def decode_settings(header: str | None) -> JsonObject:
    """Return the customer's settings from an `X-Segment-Settings` header; empty without a header.

    Raises `InvalidSettings`.
    """
    if header is None or not header.strip():
        return {}
    try:
        encoded = base64.b64decode(header.strip(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _invalid_settings("X-Segment-Settings is not valid base64") from error
    if len(encoded) > MAX_SETTINGS_BYTES:
        raise _invalid_settings(f"X-Segment-Settings is larger than {MAX_SETTINGS_BYTES:,} bytes")
    try:
        settings = _loads(encoded.decode())
    except (UnicodeDecodeError, Refusal) as error:
        raise _invalid_settings("X-Segment-Settings is not valid JSON") from error
    if not isinstance(settings, dict):
        raise _invalid_settings(f"X-Segment-Settings must be a JSON object, not {type_name(settings)}")
    return settings


def _invalid_settings(text: str) -> InvalidSettings:
    return InvalidSettings((Violation(pointer="", message=text),))


def _loads(text: str) -> Any:  # noqa: ANN401 -- any of the six JSON types
    value = _parse(text, _DECODER)
    if text.count("[") + text.count("{") > MAX_NESTING and depth(text) > MAX_NESTING:
        raise NestedTooDeeply
    return value


def _parse(text: str, decoder: json.JSONDecoder) -> Any:  # noqa: ANN401 -- any of the six JSON types
    try:
        return decoder.decode(text)
    except json.JSONDecodeError as error:
        if not text.strip():
            raise InvalidJson("Request body is empty") from error
        raise InvalidJson(f"Request body is not valid JSON (line {error.lineno}, column {error.colno})") from error
    except RecursionError as error:
        raise NestedTooDeeply from error


def _parse_messages(text: str) -> JsonObject:
    """Parse each message of a batch alone; raises `CanNotSplitError`, or a `Refusal` if the batch itself is invalid."""
    outline = Outline(text)
    batch: JsonObject = {}
    count = 0
    for name_span, (start, end) in outline.members():
        name = _parse(text[slice(*name_span)], _LENIENT_DECODER)
        if BATCH.canonical[name] and outline.is_array(start):
            batch[name] = [_parse_message(text[slice(*span)]) for span in outline.pieces(start)]
            count += len(batch[name])
            if count > MAX_PIECES:  # a body may repeat its batch field many times
                raise CanNotSplitError
        else:
            batch[name] = _parse(text[start:end], _LENIENT_DECODER)
    return batch


def _parse_message(text: str) -> object:
    """Return the value of a message, or its `Refusal` if it can't be parsed; raises `CanNotSplitError`."""
    try:
        return _parse(text, _LENIENT_DECODER)
    except NestedTooDeeply as refusal:
        return refusal
    except InvalidJson as refusal:
        if may_hide_messages(text):
            raise CanNotSplitError from refusal
        return InvalidJson("A message must be valid JSON")


def _any_integer(digits: str) -> int | float:
    """Return an integer, or infinity if it is out of range."""
    if len(digits) > MAX_INTEGER_DIGITS and isinf(number := float(digits)):
        return number
    return int(digits)


def _integer(digits: str) -> int:
    if len(digits) > MAX_INTEGER_DIGITS and isinf(float(digits)):
        raise NumberOutOfRange
    return int(digits)


def _fraction(digits: str) -> float:
    if isinf(number := float(digits)):
        raise NumberOutOfRange
    return number


def _refuse_constant(name: str) -> Never:
    raise InvalidJson(f"Request body is not valid JSON ({name} is not a JSON value)")


_DECODER = json.JSONDecoder(parse_int=_integer, parse_float=_fraction, parse_constant=_refuse_constant)
_LENIENT_DECODER = json.JSONDecoder(parse_int=_any_integer)
"""Accepts `NaN` and `Infinity`, which are not JSON but which Python senders write. A number out of range becomes
infinity."""
