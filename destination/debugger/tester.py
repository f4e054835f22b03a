"""The event tester: check sample messages by the function's own schemas, and send them exactly as Segment does."""

import base64
import json
import shlex
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import urllib3

from destination.debugger.layout import Layout, lay_out
from destination.debugger.marks import entry, entry_ranges, mark_violations, old_names_in
from destination.debugger.rendering import render_content, render_headers
from destination.deployment import demo
from destination.deployment.main_thread import in_main_thread
from destination.deployment.target import LOCAL_CA
from destination.local.api import REQUEST_ID
from destination.paths import ROOT
from destination.segment.client import Answer, segment_headers, send
from destination.segment.samples import sample_message
from handler.canonicalise import Message
from handler.decode import decode_settings, decode_text
from handler.errors import InvalidSettings, NothingAccepted, Refusal, Violation
from handler.judge import Judge
from handler.keys import DEMO_KEY_PREFIX
from handler.record import utf8
from handler.routes import ROUTES, SEGMENT, BatchRoute
from handler.spec import BATCH, CALL_TYPES

ACCEPTED = 200
MAX_COMMAND_CHARS = 100_000
"""Linux accepts 128 KB in one argument."""
TOO_LONG = "x" * 101
"""A message id that is too long."""
ODD_SAMPLES = Path(__file__).parent / "samples.json"
UNKNOWN_KEY = "a-key-that-nobody-gave-out"


def demo_keys() -> list[dict[str, str | None]]:
    """Return the keys that the page offers, with their names."""
    known = [{"label": record.label, "api_key": f"{DEMO_KEY_PREFIX}{record.label}"} for record in demo.KEYS]
    return [*known, {"label": "unknown", "api_key": UNKNOWN_KEY}, {"label": "none", "api_key": None}]


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A message to be sent; without an `api_key` there are no credentials."""

    path: str
    text: str
    settings: str = ""
    api_key: str | None = None

    @property
    def body(self) -> bytes:
        """The request body."""
        return self.text.encode("utf-8", "surrogatepass")

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers that Segment sends."""
        headers = segment_headers(utf8(self.api_key or ""))
        if self.api_key is None:
            del headers["Authorization"]
        if self.settings.strip():
            headers["X-Segment-Settings"] = base64.b64encode(self.settings.encode("utf-8", "surrogatepass")).decode()
        return headers


@dataclass(frozen=True, kw_only=True)
class Tester:
    """Judges drafts by the function's current schemas, and sends them to the deployment at `url`."""

    url: str
    http: urllib3.PoolManager
    judge: Callable[[], Judge]

    def samples(self) -> Iterator[dict[str, Any]]:
        """Yield sample messages, each with its own id: of each call type, unusual ones, and refused ones."""
        now = datetime.now(UTC)
        for call_type in CALL_TYPES:
            text = json.dumps(sample_message(call_type, now), indent=2, ensure_ascii=False)
            yield self._sample("Call types", call_type, Draft(path=SEGMENT.path, text=text))
        for file in sorted((ROOT / "events").glob("*.json")):
            if file.stem not in CALL_TYPES and (draft := _draft(json.loads(file.read_text("utf-8")))):
                group = "Batches and libraries" if draft.path != SEGMENT.path else None
                yield self._sample(group, file.stem.replace("-", " "), draft)
        for odd in json.loads(ODD_SAMPLES.read_text("utf-8")):
            text = json.dumps(_renewed(odd["body"]), indent=2, ensure_ascii=False)
            yield self._sample(None, odd["title"], Draft(path=odd["path"], text=text))

    def _sample(self, group: str | None, title: str, draft: Draft) -> dict[str, Any]:
        accepted = self.check(draft)["status"] == ACCEPTED
        return {
            "group": group or ("Unusual, but accepted" if accepted else "Refused"),
            "title": title,
            "path": draft.path,
            "text": draft.text,
            "settings": draft.settings,
        }

    def check(self, draft: Draft) -> dict[str, Any]:
        """Return the answer that a draft with a valid key would get, and its problems with their lines in the text."""
        return _check(draft, self.judge())

    def send(self, draft: Draft) -> dict[str, Any]:
        """Send a draft and return request and answer; raises `urllib3.exceptions.HTTPError`."""
        answer = self.post(draft)
        return {
            "request_id": next((value for name, value in answer.headers.items() if name.lower() == REQUEST_ID), None),
            "request": {
                "method": "POST",
                "url": self.url + draft.path,
                "headers": render_headers([*draft.headers.items()]),
                **render_content(draft.text),
            },
            "answer": {
                "status": answer.status,
                "headers": [*answer.headers.items()],
                "ms": round(answer.milliseconds, 1),
                **render_content(answer.text),
            },
        }

    def post(self, draft: Draft) -> Answer:
        """Send a draft; raises `urllib3.exceptions.HTTPError`."""
        return send(self.http, self.url + draft.path, draft.headers, draft.body)

    def curl(self, draft: Draft) -> str:
        """Return a curl command for the same request; raises `ValueError` if no command can contain the text."""
        if "\0" in draft.text or utf8(draft.text) != draft.text:
            raise ValueError("A command can't contain this text: it has a NUL, or half of a character")
        if len(draft.text) > MAX_COMMAND_CHARS:
            raise ValueError(f"A command can't contain this text: it has more than {MAX_COMMAND_CHARS:,} characters")
        names = ("Content-Type", "X-Segment-Settings")
        ca = f"--cacert {shlex.quote(str(LOCAL_CA))} " if self.url.startswith("https") else ""
        credentials = "" if draft.api_key is None else f"-u {shlex.quote(draft.api_key + ':')} "
        headers = [f"-H {shlex.quote(f'{name}: {value}')}" for name, value in draft.headers.items() if name in names]
        body, address = shlex.quote(draft.text), shlex.quote(self.url + draft.path)
        return f"curl {ca}-i {credentials}{' '.join(headers)} \\\n  --data-raw {body} \\\n  {address}"


def _draft(event: Mapping[str, Any]) -> Draft | None:
    """Return the request of a sample event, None if the event is about credentials, or its body is not text."""
    route = ROUTES.get(event.get("routeKey", ""))
    authorization = event.get("headers", {}).get("authorization")
    good = segment_headers(demo.GOOD_KEY)["Authorization"]
    if route is SEGMENT and event["isBase64Encoded"]:
        return None  # it is a sample of how API Gateway delivers a body
    if route is None or not (authorization == good or (route is not SEGMENT and authorization is None)):
        return None
    try:
        text = decode_text(event["body"], is_base64=event["isBase64Encoded"])
        settings = decode_settings(event["headers"].get("x-segment-settings"))
    except Refusal:
        return None
    with suppress(ValueError):  # some samples are not JSON
        text = json.dumps(_renewed(json.loads(text)), indent=2, ensure_ascii=False)
    return Draft(path=route.path, text=text, settings=json.dumps(settings) if settings else "")


def _renewed(body: Any) -> Any:  # noqa: ANN401 -- any of the six JSON types
    """Replace the ids of messages: otherwise a second try of a sample would be a duplicate."""
    if not isinstance(body, dict):
        return body
    renewed = {name: list(map(_renewed, value)) if BATCH.canonical[name] else value for name, value in body.items()}
    if len(body.get("messageId", TOO_LONG)) < len(TOO_LONG):
        renewed["messageId"] = f"test-{uuid.uuid4()}"
    return renewed


def _check(draft: Draft, judge: Judge) -> dict[str, Any]:
    route = ROUTES[f"POST {draft.path}"]
    try:
        messages = route.canonicalise(route.decode(draft.text))
    except Refusal as refusal:
        return _verdict(refusal, [{"line": _row_of_error(refusal), "message": str(refusal)}])
    settings = draft.headers.get("X-Segment-Settings", "")
    refusals = in_main_thread(lambda: judge.refusals(messages, settings, route=route))
    layout = lay_out(draft.text)
    is_batch = isinstance(route, BatchRoute)
    ranges = entry_ranges(layout) if is_batch else {}
    problems: list[dict[str, Any]] = []
    refused: list[Refusal] = []
    for index, (message, found) in enumerate(zip(messages, refusals, strict=True)):
        if found is not None:
            refused.append(found)
            lines = entry(layout, ranges.get(index, range(0))) if is_batch else layout
            problems += _problems(found, lines, message, f"At index {index}: " if is_batch else "")
    if refused and len(refused) == len(messages):
        return _verdict(NothingAccepted() if is_batch else refused[0], problems)
    return {
        "status": ACCEPTED,
        "code": None,
        "message": None,
        "call_type": messages[0].type if len(messages) == 1 else None,
        "accepted": len(messages) - len(refused),
        "refused": len(refused),
        "problems": problems,
    }


def _verdict(refusal: Refusal, problems: list[dict[str, Any]]) -> dict[str, Any]:
    facts = {"status": refusal.status, "code": refusal.code, "message": str(refusal)}
    return {**facts, "call_type": None, "problems": problems}


def _row_of_error(refusal: Refusal) -> int | None:
    """Return the line at which a text stops being valid JSON."""
    return refusal.__cause__.lineno if isinstance(refusal.__cause__, json.JSONDecodeError) else None


def _problems(refusal: Refusal, lines: Layout, message: Message, whose: str) -> Iterator[dict[str, Any]]:
    """Yield the problems of a message, each with its line."""
    if isinstance(refusal, InvalidSettings):
        yield from ({"line": None, "message": violation.message} for violation in refusal.violations)
        return
    violations = refusal.violations or (Violation(pointer="/type", message=str(refusal)),)
    for line in mark_violations(lines, violations, old_names_in(message.body)).lines:
        yield from ({"line": line.row, "message": whose + mark.text} for mark in line.marks)
