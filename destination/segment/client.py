"""An HTTP client that sends a message exactly as Segment does, and the URLs of a deployment."""

import base64
import json
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import urllib3

from destination.segment.contract import BATCH_PATHS, CALL_PATHS, SEGMENT_PATH

SEGMENT_TIMEOUT_SECONDS = 5
MAX_ANSWER_BYTES = 1024 * 1024
"""The rest of a longer answer is not read: a server may send without end."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer of an endpoint to one message."""

    status: int
    headers: dict[str, str]
    text: str
    milliseconds: float

    @property
    def body(self) -> Any:  # noqa: ANN401 -- any of the six JSON types
        """The body as JSON, or as text if it is not JSON or is nested too deeply to be printed."""
        try:
            body = json.loads(self.text)
            json.dumps(body, indent=2)
        except (ValueError, RecursionError):
            return self.text
        return body


def segment_headers(api_key: str, settings: dict[str, Any] | None = None) -> dict[str, str]:
    """Return the headers that Segment sends."""
    headers = {
        "Accept": "*/*",
        "Authorization": "Basic " + base64.b64encode(f"{api_key}:".encode()).decode(),
        "Cache-Control": "no-cache",
        "Connection": "Keep-Alive",
        "Content-Type": "application/json",
        "User-Agent": "Segment.io/1.0",
    }
    if settings:
        headers["X-Segment-Settings"] = base64.b64encode(json.dumps(settings).encode()).decode()
    return headers


def send(http: urllib3.PoolManager, url: str, headers: dict[str, str], body: bytes) -> Answer:
    """Post a message within Segment's five seconds; raises `urllib3.exceptions.HTTPError`."""
    began = time.monotonic()
    headers = {**headers, "Accept-Encoding": urllib3.util.SKIP_HEADER}
    answer = http.request(
        "POST",
        url,
        headers=headers,
        body=body,
        timeout=SEGMENT_TIMEOUT_SECONDS,
        retries=False,
        redirect=False,
        preload_content=False,
    )
    received = b""
    try:
        while len(received) < MAX_ANSWER_BYTES and (piece := answer.read1(MAX_ANSWER_BYTES - len(received))):
            received += piece
            if time.monotonic() - began > SEGMENT_TIMEOUT_SECONDS:
                raise urllib3.exceptions.TimeoutError(f"the answer takes longer than {SEGMENT_TIMEOUT_SECONDS} seconds")
        is_whole = len(received) < MAX_ANSWER_BYTES
    except urllib3.exceptions.HTTPError:
        answer.close()
        raise
    if is_whole:
        answer.release_conn()
    else:
        answer.close()
    return Answer(
        status=answer.status,
        headers=dict(answer.headers),
        text=received.decode("utf-8", "replace"),
        milliseconds=(time.monotonic() - began) * 1000,
    )


def deployment_url(endpoint: str) -> str:
    """Return the base URL of a deployment from that URL or the URL of one of its routes."""
    parts = urlsplit(endpoint)
    path = parts.path.rstrip("/")
    for route in (SEGMENT_PATH, *CALL_PATHS, *BATCH_PATHS):
        path = path.removesuffix(route)
    return parts._replace(path=path.removesuffix("/v1"), query="", fragment="").geturl()
