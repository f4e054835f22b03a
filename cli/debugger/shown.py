"""What of a request may be shown: its headers without keys, and its body as lines."""

import json
from typing import Any

from cli.debugger.exchange import Headers
from cli.debugger.layout import Layout, lay_out
from cli.debugger.marks import mask_write_keys, masked
from handler.authenticate import parse_basic
from handler.errors import Refusal

MAX_TEXT_CHARS = 20_000
"""That are shown of a body which is no JSON."""
NOT_SHOWN = "(not shown)"


def shown_headers(headers: Headers) -> list[tuple[str, str]]:
    """Return headers as they may be shown: without keys."""
    return [(name, _shown_value(name.lower(), value)) for name, value in headers]


def _shown_value(name: str, value: str) -> str:
    if name == "cookie":
        return NOT_SHOWN
    if name != "authorization":
        return value
    try:
        return f"Basic {masked(parse_basic(value))}"
    except Refusal:
        return NOT_SHOWN


def shown_content(text: str | None, layout: Layout | None = None) -> dict[str, Any]:
    """Return what the page is told of a body: its lines, or the text where that is no JSON."""
    layout = layout or json_layout(text)
    if layout is not None:
        return {"body": mask_write_keys(layout).to_json(), "text": None}
    return {"body": None, "text": text and text[:MAX_TEXT_CHARS]}


def json_layout(text: str | None) -> Layout | None:
    """Return the lines of a text, None where it is no JSON."""
    try:
        json.loads(text or "")
    except (ValueError, RecursionError):
        return None
    return lay_out(text or "")
