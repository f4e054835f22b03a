"""Render the parts of a request that may be shown: its headers without keys, and its body as lines."""

import json
import re
from typing import Any

from destination.debugger.layout import Layout, lay_out
from destination.debugger.marks import mask_write_keys, masked
from destination.local.exchange import Headers
from handler.authenticate import parse_basic
from handler.errors import Refusal

_SECRET = re.compile("auth|cookie|key|password|secret|token", re.IGNORECASE)
"""Words in the names of headers that may contain credentials."""
_WRITE_KEY = re.compile(r"""(write[\s_-]*key["']?\s*[:=]\s*["']?)[^"'&,\s}]+""", re.IGNORECASE)
"""A write key in a text that is not valid JSON, such as one that ends too early."""
MAX_TEXT_CHARS = 20_000
"""Limit for the shown part of a body that is not JSON."""
NOT_SHOWN = "(not shown)"


def render_headers(headers: Headers) -> list[tuple[str, str]]:
    """Return headers without keys."""
    return [(name, _shown_value(name.lower(), value)) for name, value in headers]


def _shown_value(name: str, value: str) -> str:
    if not _SECRET.search(name):
        return value
    try:
        return f"Basic {masked(parse_basic(value))}"
    except Refusal:
        return NOT_SHOWN


def render_content(text: str | None, layout: Layout | None = None) -> dict[str, Any]:
    """Return the page's form of a body: its lines, or its text if it is not JSON."""
    layout = layout or json_layout(text)
    if layout is not None:
        return {"body": mask_write_keys(layout).to_json(), "text": None}
    return {"body": None, "text": text and _WRITE_KEY.sub(r"\1…", text)[:MAX_TEXT_CHARS]}


def json_layout(text: str | None) -> Layout | None:
    """Return the lines of a text, None if it is not JSON."""
    try:
        json.loads(text or "", parse_int=str, parse_float=str)  # numbers of any length
    except (ValueError, RecursionError):
        return None
    return lay_out(text or "")
