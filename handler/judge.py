"""Step 4: judge messages. This module alone defines the order of the checks.

    fault -> call type -> scope of the key -> erasure -> settings -> schema

The endpoint judges the messages that arrive. The command line judges messages of a known customer: rejects to be
retried, drafts in the event tester, and stored messages that new schemas are tried on.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache, partial

from handler.canonicalise import Message
from handler.decode import JsonObject, decode_settings
from handler.errors import Refusal
from handler.routes import SEGMENT, Route
from handler.time_limit import CheckTime
from handler.validate import Schemas, check_call_type

Check = Callable[[Sequence[Message]], Sequence[Refusal | None]]
"""Returns the refusal of each message, None for a message that passes; raises an `Unavailable`."""


def pass_all(messages: Sequence[Message]) -> Sequence[None]:
    """Refuse nothing."""
    return [None] * len(messages)


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Judges the messages of a request by the schemas and the supported call types."""

    schemas: Schemas
    supported_call_types: Collection[str]

    def refusals(
        self,
        messages: Sequence[Message],
        settings_header: str,
        *,
        route: Route = SEGMENT,
        scope: Check = pass_all,
        erasure: Check = pass_all,
    ) -> list[Refusal | None]:
        """Return the first refusal of each message, None for an accepted message; raises an `Unavailable`.

        `scope` refuses call types that the key may not send, and `erasure` refuses messages of erased users. The route
        decides whether a bug ends the request or becomes an `InternalError`.
        """
        time = CheckTime()
        settings = cache(partial(decode_settings, settings_header))

        def by_schemas(message: Message) -> None:
            self.check_schemas(str(message.type), message.body, settings(), time)

        refusals: list[Refusal | None] = [None] * len(messages)
        for check in (each(route, partial(self._check_type, route)), scope, erasure, each(route, by_schemas)):
            left = [index for index, refusal in enumerate(refusals) if refusal is None]
            for index, refusal in zip(left, check([messages[index] for index in left]), strict=True):
                refusals[index] = refusal
        return refusals

    def check_schemas(
        self, call_type: str, body: JsonObject, settings: JsonObject, time: CheckTime | None = None
    ) -> None:
        """Raise an `Invalid` if a schema refuses the settings or a canonical message."""
        self.schemas.check_settings(settings, time)
        self.schemas.check_message(call_type, body, time)

    def _check_type(self, route: Route, message: Message) -> None:
        if message.fault is not None:
            raise message.fault
        check_call_type(message, self.supported_call_types, expected=route.call_type)


def each(route: Route, check: Callable[[Message], None]) -> Check:
    """Return a check of several messages, built from a check that raises the refusal of one message."""

    def verdict(message: Message) -> Refusal | None:
        try:
            return route.isolate(partial(check, message))
        except Refusal as refusal:
            return refusal

    return lambda messages: [verdict(message) for message in messages]
