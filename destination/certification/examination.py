"""The tools of the checklist's points: an endpoint, keys, valid messages, and the stores behind it, if known.

The first message shows whether others are worth sending. If there is no answer, or a valid message is not accepted,
points that need that can't be checked.
"""

import base64
import gzip
import itertools
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from destination.certification.findings import NotCheckable
from destination.certification.samples import Samples
from destination.certification.store_access import MAX_WAIT_WITH_FAILURES_SECONDS, ApiKeys, StoreAccess
from destination.certification.wire import MAX_SILENT, Sent, Wire, WireExchange
from destination.segment.client import deployment_url, segment_headers
from destination.segment.contract import CALL_TYPES, DELETE, JsonObject

CARRIERS = ("track", "identify", "page", "screen", "group", "alias", DELETE)
"""The call types that carry tested content; the first supported one is used."""
START_API = "werkzeug"
"""The server name of `sam local start-api`."""
SILENT = f"the last {MAX_SILENT} requests got no answer, so nothing more was sent"
WITH_STORES = "name the stores behind it: --stack, or --stores for a local server"


@dataclass(frozen=True, kw_only=True)
class AcceptedMessage:
    """An accepted message in the spelling of Segment's documentation, and its id."""

    plain: JsonObject
    message_id: str

    @property
    def is_delete(self) -> bool:
        """Return whether it requests an erasure, which also removes the message itself."""
        return self.plain.get("type") == DELETE


class CheckRequest(NamedTuple):
    """A message or bytes to post, by default with Segment's headers and to the endpoint itself.

    `plain` is the message in the spelling of Segment's documentation, if `content` disguises it.
    """

    content: JsonObject | bytes
    headers: Mapping[str, str] | None = None
    plain: JsonObject | None = None
    target: str | None = None


@dataclass(frozen=True, kw_only=True)
class UserToErase:
    """A user of the run's customer, and the bystander's user with the same id: each has a message.

    `name` is a trait of both. With `has_identify`, each also sent a message from which the shipped consumer makes a
    contact. With `has_broken`, each also sent a message that a schema refuses. `times` are the times of messages from
    before and after the delete.
    """

    message: JsonObject
    name: str
    has_identify: bool
    has_broken: bool
    times: Mapping[str, JsonObject]


@dataclass(frozen=True, kw_only=True)
class ErasedUser(UserToErase):
    """A user for whom a delete was sent; `has_reject` and `has_contact` say what was stored of both users before."""

    delete: WireExchange
    has_reject: bool
    has_contact: bool


class Examination:
    """One run. `name` is the customer's if the run has stores, and it is part of all ids that are sent."""

    def __init__(
        self, wire: Wire, *, name: str, keys: ApiKeys, samples: Samples, store_access: StoreAccess | None = None
    ) -> None:
        self.wire = wire
        self.name = name
        self.keys = keys
        self.samples = samples
        self.store_access = store_access
        self.accepted: list[AcceptedMessage] = []
        """Accepted valid messages, by any route; a message may occur more than once."""
        self.user_to_erase: UserToErase | None = None
        self.erased_user: ErasedUser | None = None
        self.revoked_at: float | None = None
        """When the used key was revoked, by the monotonic clock."""
        self._accepted_ids: set[str] = set()
        self._numbers = itertools.count(1)
        self._calls: dict[str, WireExchange] = {}
        self.refusals: dict[tuple[str, int], WireExchange] = {}
        """The answers to messages that must be refused, by point and by how often the point sent before."""

    # Requests

    @property
    def marks(self) -> dict[str, str]:
        """Sent data that must not occur in any error, by its kind."""
        return {
            "an e-mail address": f"ada.{self.name}@example.com",
            "a user id": f"{self.name}-user",
            "an anonymous id": f"{self.name}-visitor",
            "a name": f"Lovelace-{self.name}",
            "the name of a property": f"property-{self.name}",
            "credentials": f"credentials-{self.name}",
            "credentials in base64": _base64(f"credentials-{self.name}"),
            "settings": f"settings-{self.name}",
            "settings in base64": _base64(f"settings-{self.name}"),
        }

    @cached_property
    def carrier(self) -> str:
        """The call type that carries tested content: without stores, only the answers show the result."""
        if self.store_access:
            return next(call_type for call_type in CARRIERS if call_type in self.store_access.call_types)
        is_taken = (name for name in CARRIERS if self._called(name).status != HTTPStatus.NOT_IMPLEMENTED)
        return next(is_taken, CARRIERS[0])

    @property
    def own(self) -> str:
        """The field of the carrier whose keys belong to the customer."""
        return "traits" if self.carrier in ("identify", "group") else "properties"

    def message(self, call_type: str | None = None, **fields: Any) -> JsonObject:  # noqa: ANN401 -- any JSON value
        """Return a valid message of a new user, with other fields."""
        number = next(self._numbers)
        ids = {
            "userId": f"{self.marks['a user id']}-{number}",
            "anonymousId": f"{self.marks['an anonymous id']}-{number}",
            "messageId": f"certify-{uuid.uuid4()}",
        }
        call_type = call_type or self.carrier
        if call_type == "alias":
            ids["previousId"] = ids["anonymousId"]
        if call_type == DELETE:
            del ids["anonymousId"]
        return {**self.samples.message(call_type, **ids), **fields}

    def personal(self, call_type: str | None = None, **fields: Any) -> JsonObject:  # noqa: ANN401 -- any JSON value
        """Return a valid message with personal data, which will be refused for another reason."""
        message = self.message(call_type)
        holds = {
            "email": self.marks["an e-mail address"],
            "name": self.marks["a name"],
            self.marks["the name of a property"]: self.marks["a name"],
        }
        own = message.get(self.own) if call_type in (None, self.carrier) else None
        if isinstance(own, dict):
            message[self.own] = {**own, **holds}
        return {**message, **fields}

    def broken(self) -> JsonObject:
        """Return a message that the carrier's schema in this checkout refuses."""
        call_type = self.carrier
        broken = self.personal(**{self.own: self.marks["a name"]})
        if call_type in ("alias", "track"):
            missing = {"alias": "previousId", "track": "event"}[call_type]
            broken = {name: value for name, value in self.personal().items() if name != missing}
        if self.samples.refusal(broken) is None:
            raise NotCheckable(
                f"schemas/{call_type}.json of this checkout refuses none of the messages that could be sent here"
            )
        return broken

    def headers(self, key: str | None = None, **other: str) -> dict[str, str]:
        """Return Segment's headers; an underscore stands for the hyphen of a name."""
        headers = segment_headers(key or self.keys.good, self.samples.settings)
        return {**headers, **{name.replace("_", "-"): value for name, value in other.items()}}

    def post(
        self, content: JsonObject | bytes, headers: Mapping[str, str] | None = None, *, target: str | None = None
    ) -> WireExchange:
        """Send a message or bytes; raises `NotCheckable` if there is no answer."""
        self._need_answers()
        return self._post(content, headers, target=target)

    def post_valid(
        self,
        content: JsonObject | bytes,
        headers: Mapping[str, str] | None = None,
        *,
        plain: JsonObject | None = None,
    ) -> WireExchange:
        """Send a message that must be accepted; raises `NotCheckable` if even an ordinary message is not.

        `plain` is the message in the spelling of Segment's documentation, if `content` disguises it.
        """
        self._need_acceptance()
        return self._noted(plain or content, self.wire.send(self._sent(CheckRequest(content, headers, plain))))

    def post_all(self, sendings: Iterable[CheckRequest]) -> list[WireExchange]:
        """Send several messages or bytes concurrently; raises `NotCheckable` if there is no answer."""
        self._need_answers()
        several = list(map(self._sent, sendings))
        exchanges = self.wire.send_all(several)
        if len(exchanges) < len(several):
            raise NotCheckable(SILENT)
        return exchanges

    def post_all_valid(self, sendings: Iterable[CheckRequest]) -> list[WireExchange]:
        """Send messages concurrently that must be accepted; raises `NotCheckable` like `post_valid`."""
        self._need_acceptance()
        several = list(sendings)
        exchanges = self.post_all(several)
        return [
            self._noted(one.plain or one.content, exchange) for one, exchange in zip(several, exchanges, strict=True)
        ]

    def bystanders(self, plain: JsonObject) -> CheckRequest:
        """Return a request with a valid message of the other customer."""
        if self.store_access:
            self.store_access.note_bystander(plain)
        return CheckRequest(plain, self.headers(self.keys.bystander))

    def post_by_key(self, content: JsonObject | bytes, headers: Mapping[str, str] | None = None) -> WireExchange:
        """Send a message that must be refused for its content; raises `NotCheckable` if the key itself is refused."""
        self.need_key()
        return self._post(content, headers)

    def _post(
        self, content: JsonObject | bytes, headers: Mapping[str, str] | None = None, *, target: str | None = None
    ) -> WireExchange:
        return self.wire.send(self._sent(CheckRequest(content, headers, target=target)))

    def _sent(self, sending: CheckRequest) -> Sent:
        """Return a request, and remember the users of its messages."""
        content = sending.content
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        if self.store_access:
            for message in [sending.plain] if sending.plain else _messages_in(body):
                self.store_access.note(message)
        return Sent(headers=sending.headers or self.headers(), body=body, target=sending.target)

    def _noted(self, plain: JsonObject | bytes, exchange: WireExchange) -> WireExchange:
        """Remember a message that is valid and was accepted."""
        if exchange.is_accepted and isinstance(plain, dict):
            self.note_accepted(plain, exchange.answer.get("message_id"))
        return exchange

    def note_accepted(self, plain: JsonObject, told_id: object = None) -> None:
        """Remember an accepted valid message; `told_id` is the id in the answer, for a message without one."""
        accepted = AcceptedMessage(plain=plain, message_id=str(plain.get("messageId") or told_id))
        self.accepted.append(accepted)
        self._accepted_ids.add(accepted.message_id)
        if self.store_access:
            self.store_access.note_plain(plain)

    @property
    def accepted_ids(self) -> set[str]:
        """The ids of all accepted messages, including messages of erased users."""
        return self._accepted_ids

    def send(self, sent: Sent) -> WireExchange:
        """Send any request; raises `NotCheckable` if there is no answer."""
        self._need_answers()
        return self.wire.send(sent)

    def target(self, path: str) -> str:
        """Return the path of another route of the same deployment."""
        return urlsplit(deployment_url(self.wire.url)).path + path

    # Results

    @cached_property
    def first(self) -> WireExchange:
        """The first message of the run, with any result."""
        return self._called(self.carrier)

    def _called(self, call_type: str) -> WireExchange:
        if call_type not in self._calls:
            message = self.message(call_type)
            self._calls[call_type] = self._noted(message, self._post(message))
        return self._calls[call_type]

    def call(self, call_type: str) -> WireExchange:
        """Send a valid message of a call type, once in a run."""
        self._need_answers()
        if call_type != self.carrier:
            self.need_key()
        return self._called(call_type)

    def need_endpoint(self) -> None:
        """Raise `NotCheckable` if no route accepts messages."""
        first = self.first
        if first.reply is None:
            raise NotCheckable(f"the endpoint can't be reached ({first.fault})")
        if first.is_redirect:
            raise NotCheckable(f"the endpoint redirects ({first.came}), and Segment does not follow")
        if first.is_no_route:
            raise NotCheckable(f"nothing accepts messages at this URL ({first.came})")

    def need_gateway(self, what: str) -> None:
        """Raise `NotCheckable` if the server of `sam local start-api` differs from an HTTP API here."""
        reply = self.first.reply
        if reply is not None and START_API in reply.headers.get("server", "").lower():
            raise NotCheckable(f"`sam local start-api` {what}; an HTTP API does")

    def _need_acceptance(self) -> None:
        """Raise `NotCheckable` if there is no answer, or an ordinary message is not accepted."""
        self._need_answers()
        if not self.first.is_accepted:
            raise NotCheckable(f"a valid {self.carrier} call is not accepted ({self.first.came})")

    def need_key(self) -> None:
        """Raise `NotCheckable` if there is no answer, or the key is refused."""
        self._need_answers()
        if self.first.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise NotCheckable(f"the API key is refused ({self.first.came})")

    @cached_property
    def has_library_routes(self) -> bool:
        """Return whether there is any route of Segment's libraries."""
        paths = ("batch", *(call_type for call_type in CALL_TYPES if call_type != DELETE))
        return any(not self.post({}, target=self.target(f"/v1/{path}")).is_no_route for path in paths)

    def need_libraries(self) -> None:
        """Raise `NotCheckable` if there are no routes of Segment's libraries."""
        self._need_answers()
        if self.samples.settings:
            raise NotCheckable("libraries send no settings, but schemas/settings.json requires some")
        if not self.has_library_routes:
            raise NotCheckable("not offered here; it is not on Segment's checklist")

    def _need_answers(self) -> None:
        """Raise `NotCheckable` if it is useless to wait for more answers."""
        self.need_endpoint()
        if self.wire.is_silent:
            raise NotCheckable(SILENT)

    @property
    def stores(self) -> StoreAccess:
        """The stores with messages; raises `NotCheckable` if they can't be read."""
        stores = self.erasing_stores
        if self.carrier == DELETE:
            raise NotCheckable("only delete calls are supported here, and they do not stay stored")
        return stores

    @property
    def erasing_stores(self) -> StoreAccess:
        """The stores behind the endpoint; raises `NotCheckable` if they can't be read."""
        if self.store_access is None:
            raise NotCheckable(f"only the stores show this: {WITH_STORES}")
        if self.store_access.is_queue:
            raise NotCheckable(
                "messages go to a queue, from which its consumer receives them; `destination simulate` with "
                "Consumer=off "
                "reads them back"
            )
        if self.wire.has_failures:
            self.store_access.max_wait_seconds = MAX_WAIT_WITH_FAILURES_SECONDS
        return self.store_access


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _messages_in(body: bytes) -> Iterator[JsonObject]:
    """Yield the readable messages in a body."""
    try:
        content = json.loads(gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body)
    except (ValueError, OSError, EOFError, RecursionError):
        return
    entries = content.get("batch", [content]) if isinstance(content, dict) else content
    yield from (entry for entry in entries if isinstance(entry, dict)) if isinstance(entries, list) else ()
