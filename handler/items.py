"""DynamoDB items: their size, and long texts in them."""

import json
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from handler.decode import JsonObject

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

MAX_ITEM_BYTES = 390 * 1024
"""DynamoDB refuses items above 400 KB; the rest is for what a later version may add to an item."""
COMPRESS_ABOVE_BYTES = 64 * 1024

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))

SECONDS_PER_DAY = 24 * 60 * 60


def text_attribute(text: str) -> "AttributeValueTypeDef":
    """Return a text as an attribute, compressed by zlib (RFC 1950) where it is long."""
    octets = text.encode()
    return {"B": zlib.compress(octets)} if len(octets) > COMPRESS_ABOVE_BYTES else {"S": text}


def read_text_attribute(attribute: Mapping[str, Any]) -> str:
    """Return the text of an attribute that `text_attribute` made."""
    text: str = zlib.decompress(attribute["B"]).decode() if "B" in attribute else attribute["S"]
    return text


def json_attribute(document: JsonObject) -> "AttributeValueTypeDef":
    """Return a document as JSON text; a lone surrogate has no UTF-8, so that it needs the escaped form."""
    return text_attribute(json_text(document))


def json_text(document: JsonObject) -> str:
    """Return a document as JSON that UTF-8 can hold."""
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
    """Count as DynamoDB does: names and values, a number as its digits at the most."""
    values = ((name, value) for name, attribute in item.items() for value in attribute.values())
    return sum(len(name) + len(value if isinstance(value, bytes) else str(value).encode()) for name, value in values)
