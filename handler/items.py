"""Compute the size of an item as DynamoDB bills it, compress its texts where that saves money, and read them back.

Sizes: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
Write units: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html
"""

import json
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from handler.decode import JsonObject

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

MAX_ITEM_BYTES = 390 * 1024
"""DynamoDB refuses items above 400 KB; the difference is room for attributes that a later version adds."""
WRITE_UNIT_BYTES = 1024
"""A write of an item costs one unit for each 1 KB, rounded up."""

_MIN_WINDOW_BITS = 12
_WINDOW_BITS_MINUS_MEMORY_LEVEL = 7
"""As in the defaults of zlib, which are 15 and 8. With a lower memory level, zlib splits short texts into blocks."""

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))

SECONDS_PER_DAY = 24 * 60 * 60


def save_units(item: "dict[str, AttributeValueTypeDef]", *names: str) -> int:
    """Compress texts of an item by zlib (RFC 1950), and return the size of the item in bytes.

    `names` are checked in this order. A text is compressed only if the item then takes fewer write units.
    """
    size = item_bytes(item)
    for name in names:
        if size <= WRITE_UNIT_BYTES:
            break
        if name in item:
            octets = item[name]["S"].encode()
            compressed = _compress(octets)
            smaller_size = size - len(octets) + len(compressed)
            if _write_units(smaller_size) < _write_units(size):
                item[name] = {"B": compressed}
                size = smaller_size
    return size


def _write_units(size: int) -> int:
    return -(-size // WRITE_UNIT_BYTES)


def _compress(octets: bytes) -> bytes:
    """Compress with a window that fits the length, because zlib needs more time for a full window than for 1 KB."""
    window_bits = min(max(len(octets).bit_length(), _MIN_WINDOW_BITS), zlib.MAX_WBITS)
    compressor = zlib.compressobj(wbits=window_bits, memLevel=window_bits - _WINDOW_BITS_MINUS_MEMORY_LEVEL)
    return compressor.compress(octets) + compressor.flush()


def read_text_attribute(attribute: Mapping[str, Any]) -> str:
    """Return a text, which `save_units` may have compressed."""
    text: str = zlib.decompress(attribute["B"]).decode() if "B" in attribute else attribute["S"]
    return text


def json_text(document: JsonObject) -> str:
    """Return a document as JSON text that UTF-8 can encode."""
    text = _ENCODER.encode(document)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(document, separators=(",", ":"))
    return text


def read_json_attribute(attribute: Mapping[str, Any]) -> JsonObject:
    """Return the document of a text, which `save_units` may have compressed."""
    document: JsonObject = json.loads(read_text_attribute(attribute))
    return document


def item_bytes(item: "Mapping[str, AttributeValueTypeDef]") -> int:
    """Return the size of an item with texts, bytes and numbers, as DynamoDB counts it."""
    size = 0
    value: Any
    for name, attribute in item.items():
        [(kind, value)] = attribute.items()
        if kind == "N":
            value_bytes = _number_bytes(value)
        else:
            value_bytes = len(value) if kind == "B" or value.isascii() else len(value.encode())
        size += len(name) + value_bytes
    return size


def _number_bytes(digits: str) -> int:
    """Count one byte for every two significant digits, and one more."""
    return -(-len(digits.strip("0")) // 2) + 1
