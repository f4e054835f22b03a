"""Step 2: bytes -> one JSON object (RFC 8259), within limits; the settings header too, which is JSON in base64.

A body may be compressed by gzip (RFC 1952), which is known by how it begins: no JSON begins so.

Of duplicate names the last counts. Integers are exact, fractions are IEEE 754 doubles; a number beyond the range of a
double is refused, because most readers of what we store would turn it into Infinity.
"""

import base64
import binascii
import gzip
import json
import math
import zlib
from collections.abc import Iterable
from io import BytesIO
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

JsonObject = dict[str, Any]
"""A JSON object as Python's `json` reads it."""

MAX_BODY_BYTES = 1024 * 1024
"""Segment limits a call to 32 KB on its way in and then adds fields; reverse-ETL records reach 512 KiB."""
MAX_BATCH_BYTES = 500 * 1024
"""https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/#batch"""
MAX_SETTINGS_BYTES = 8 * 1024
"""API Gateway limits all request headers together to 10,240 bytes."""
MAX_NESTING = 100
"""Objects and arrays inside each other; Segment names no limit, real messages stay below ten."""
MAX_INTEGER_DIGITS = 308
"""The largest double has 309 digits: below that any integer is in its range."""

_GZIP_BEGINS = b"\x1f\x8b"

_TYPE_NAMES = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}


def type_name(value: object) -> str:
    """Name the JSON type of a value for a sentence: `an object`, `a number`, `null`."""
    return _TYPE_NAMES.get(type(value), "a number")


def decode_body(body: str, *, is_base64: bool = False) -> JsonObject:
    """Return the JSON object that a request body holds; raises a `Refusal` with status 400 for anything else."""
    return parse_body(decode_text(body, is_base64=is_base64))


def parse_body(text: str) -> JsonObject:
    """Return the JSON object that the text of a request body holds; raises a `Refusal` with status 400."""
    return _object(_loads(text))


def _object(value: object) -> JsonObject:
    if not isinstance(value, dict):
        raise NotAnObject(f"Request body must be one JSON object, not {type_name(value)}")
    return value


def decode_batch(body: str, *, is_base64: bool = False) -> JsonObject:
    """Return the JSON object that the body of a batch holds; raises a `Refusal` with status 400 for anything else.

    What is wrong with one of its messages does not concern the others: `check_values` tells, for each.
    """
    try:
        text = decode_text(body, is_base64=is_base64, max_bytes=MAX_BATCH_BYTES)
    except MessageTooLarge as error:
        raise BatchTooLarge(str(error)) from error
    return _object(_parse(text, _PATIENT_DECODER))


def check_values(value: object) -> None:
    """Raise `NestedTooDeeply` or `NumberOutOfRange` for what `decode_batch` lets pass."""
    values = [value]
    for _ in range(MAX_NESTING + 1):
        containers = [value for value in values if isinstance(value, dict | list)]
        if not containers:
            return
        values = [value for container in containers for value in _children(container)]
        if any(isinstance(value, float) and not math.isfinite(value) for value in values):
            raise NumberOutOfRange("A number is NaN, infinite or out of range")
    raise NestedTooDeeply


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
        return octets.decode()
    except UnicodeDecodeError as error:
        raise InvalidEncoding from error


def _decompress(octets: bytes, max_bytes: int) -> bytes:
    """Return as much of what was compressed; more is never made of it, so that a bomb does no harm."""
    try:
        with gzip.GzipFile(fileobj=BytesIO(octets)) as content:
            return content.read(max_bytes)
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidEncoding("Request body is not valid gzip") from error


def decode_settings(header: str | None) -> JsonObject:
    """Return the customer's settings from an `X-Segment-Settings` header, empty when there is none.

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


def _loads(text: str) -> Any:  # noqa: ANN401 -- JSON is any of six types
    value = _parse(text, _DECODER)
    if text.count("[") + text.count("{") > MAX_NESTING:
        check_values(value)
    return value


def _parse(text: str, decoder: json.JSONDecoder) -> Any:  # noqa: ANN401 -- JSON is any of six types
    try:
        return decoder.decode(text)
    except json.JSONDecodeError as error:
        if not text.strip():
            raise InvalidJson("Request body is empty") from error
        raise InvalidJson(f"Request body is not valid JSON (line {error.lineno}, column {error.colno})") from error
    except RecursionError as error:
        raise NestedTooDeeply from error


def _any_integer(digits: str) -> int | float:
    """Return an integer, or infinity for one that is out of range."""
    if len(digits) > MAX_INTEGER_DIGITS and math.isinf(number := float(digits)):
        return number
    return int(digits)


def _integer(digits: str) -> int:
    return int(_finite(_any_integer(digits)))


def _fraction(digits: str) -> float:
    return _finite(float(digits))


def _finite(number: float) -> float:
    if math.isinf(number):
        raise NumberOutOfRange
    return number


def _refuse_constant(name: str) -> Never:
    raise InvalidJson(f"Request body is not valid JSON ({name} is not a JSON value)")


_DECODER = json.JSONDecoder(parse_int=_integer, parse_float=_fraction, parse_constant=_refuse_constant)
_PATIENT_DECODER = json.JSONDecoder(parse_int=_any_integer)
"""Takes `NaN` and `Infinity`, which are no JSON but what Python sends, and gives infinity for what is out of range."""


def _children(container: JsonObject | list[Any]) -> Iterable[object]:
    return container.values() if isinstance(container, dict) else container
