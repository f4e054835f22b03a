"""A request that came, and all that was answered and written of it."""

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
BYTES_BESIDE_BODIES = 4096
"""About what headers and lines of a request take."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What can be read of a body: its text and its messages; both are missing where it can't."""

    text: str | None = None
    messages: Sequence[Message] = ()


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One request to the API and its answer; `milliseconds` is what the whole took.

    `body` is as the event has it. `lines` are what the function wrote of its messages; `error` is why the API answered
    by itself, and `late` what the function wrote after that.
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
        """Its route, where that takes messages."""
        return ROUTES.get(f"{self.method} {self.path}")

    @property
    def weight(self) -> int:
        """About how many bytes it takes."""
        return sum(map(sys.getsizeof, (self.body, self.answer))) + BYTES_BESIDE_BODIES

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
