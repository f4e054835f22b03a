"""One request to the local server, with its answer and log lines."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from handler.canonicalise import Message
from handler.decode import decode_text
from handler.errors import Refusal
from handler.routes import ROUTES, Route

Headers = Sequence[tuple[str, str]]
OVERHEAD_BYTES = 4096
"""The approximate size of a request's headers and lines."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The readable parts of a body: its text and its messages; both are missing if it can't be read."""

    text: str | None = None
    messages: Sequence[Message] = ()


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One request to the API and its answer; `milliseconds` is the total duration.

    `body` is in the form of the event. `lines` are the function's lines about its messages. `error` is the reason why
    the API answered by itself, and `late` has the function's lines after that.
    """

    id: str
    time: datetime
    method: str
    path: str
    headers: Headers
    body: str = ""
    is_base64: bool = False
    size: int = 0
    status: int
    answer_headers: Headers
    answer: str
    lines: Sequence[Mapping[str, Any]] = ()
    late: Sequence[Mapping[str, Any]] = ()
    error: str | None = None
    milliseconds: float

    @property
    def route(self) -> Route | None:
        """The route, if it takes messages."""
        return ROUTES.get(f"{self.method} {self.path}")

    @property
    def weight(self) -> int:
        """The approximate size in bytes."""
        return sum(map(sys.getsizeof, (self.body, self.answer))) + OVERHEAD_BYTES

    @property
    def settings_header(self) -> str:
        """`X-Segment-Settings`, joined as API Gateway does."""
        return ",".join(value for name, value in self.headers if name.lower() == "x-segment-settings")

    def read(self) -> Reading:
        """Read the body as the function does."""
        try:
            text = decode_text(self.body, is_base64=self.is_base64)
        except Refusal:
            return Reading()
        if self.route is None:
            return Reading(text=text)
        try:
            return Reading(text=text, messages=self.route.canonicalise(self.route.decode(text)))
        except Refusal:
            return Reading(text=text)
