"""Convert values to DynamoDB attributes and back, and compute the size of an item."""

import json
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from handler.decode import JsonObject

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

MAX_ITEM_BYTES = 390 * 1024
"""DynamoDB refuses items above 400 KB; the difference is room for attributes that a later version adds."""
COMPRESS_ABOVE_BYTES = 64 * 1024

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))

SECONDS_PER_DAY = 24 * 60 * 60


def text_attribute(text: str) -> "AttributeValueTypeDef":
    """Return a text as an attribute, compressed by zlib (RFC 1950) if it is long."""
    octets = text.encode()
    return {"B": zlib.compress(octets)} if len(octets) > COMPRESS_ABOVE_BYTES else {"S": text}


def read_text_attribute(attribute: Mapping[str, Any]) -> str:
    """Return the text of an attribute that `text_attribute` made."""
    text: str = zlib.decompress(attribute["B"]).decode() if "B" in attribute else attribute["S"]
    return text


def json_attribute(document: JsonObject) -> "AttributeValueTypeDef":
    """Return a document as an attribute with JSON text; a lone surrogate is escaped, because UTF-8 can't encode it."""
    return text_attribute(json_text(document))


def json_text(document: JsonObject) -> str:
    """Return a document as JSON text that UTF-8 can encode."""
    text = _ENCODER.encode(document)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(document, separators=(",", ":"))
    return text


def read_json_attribute(attribute: Mapping[str, Any]) -> JsonObject:
    """Return the document of an attribute that `json_attribute` made."""
    document: JsonObject = json.loads(read_text_attribute(attribute))
    return document


def item_bytes(item: "Mapping[str, AttributeValueTypeDef]") -> int:
    """Return the size of an item as DynamoDB counts it: names and values. For numbers it is an upper bound."""
    values = ((name, value) for name, attribute in item.items() for value in attribute.values())
    return sum(len(name) + len(value if isinstance(value, bytes) else str(value).encode()) for name, value in values)
