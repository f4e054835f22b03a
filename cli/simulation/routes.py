"""How messages get to the destination: one by one as Segment sends them, or in batches as its server libraries do.

What is retried, and for how long: https://segment.com/docs/connections/destinations/#retries and
https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/#errors
"""

import base64
import gzip
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from random import Random
from typing import Any, Protocol

from cli.ping import segment_headers
from cli.segment.contract import RETRIED_BY_LIBRARIES, RETRIED_BY_SEGMENT
from cli.simulation.endpoint import Endpoint, Reply
from cli.simulation.fingerprint import RejectKey
from cli.simulation.ledger import End
from cli.simulation.traffic import Kind, Parcel, Sending, Traffic, sent_at
from handler.canonicalise import repeated
from handler.decode import JsonObject
from handler.errors import MessageTooLarge, NothingAccepted, Refusal
from handler.items import json_text
from handler.record import sha256, subject_of
from handler.write import Outcome

LIBRARY_TIMEOUT_SECONDS = 10
"""That of the Node library, the shortest there is."""
BATCH_PATH = "/v1/batch"
BATCH_MESSAGES = 100
"""What the libraries send at once unless they are told otherwise."""
MAX_BATCH_BYTES = 475_000
"""The Python library's limit, below Segment's of 500 KB; here for the messages alone."""
NOBODYS_KEY = "key-of-nobody"
GZIP_SHARE, SENT_AT_SHARE, WRITE_KEY_SHARE, WRONG_KEY_SHARE = 0.5, 0.7, 0.3, 0.3

Load = tuple[Sending, ...]
"""What goes in one request."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of a message by a final answer; `code` is that of one that was rejected in a batch."""

    end: End
    text: str = ""
    code: str = ""


@dataclass(frozen=True, kw_only=True)
class Ruling:
    """What a final answer says: a verdict for each message, and how many were stored before."""

    verdicts: Sequence[Verdict]
    duplicates: int = 0


class Route(Protocol):
    """How those send who use a route of the destination."""

    @property
    def retried(self) -> frozenset[int]:
        """The statuses after which they send the same again."""

    @property
    def most_messages(self) -> int:
        """How many go in one request."""

    def loads(self, sendings: Iterable[Sending]) -> Iterator[Load]:
        """Yield what is sent together."""

    def request(self, load: Load, parcels: Sequence[Parcel]) -> tuple[bytes, bytes]:
        """Return head and body, always the same for the same load."""

    def rejects(self, load: Load, parcels: Sequence[Parcel]) -> Mapping[int, tuple[RejectKey, str | None]]:
        """Return, by their places, the messages that a reject can be made of, with their subjects."""

    def ruling(self, reply: Reply, messages: int) -> Ruling:
        """Read a final answer to so many messages."""


@dataclass(frozen=True, kw_only=True)
class SegmentRoute:
    """`POST /segment`: one message in each request, with the settings of its customer."""

    traffic: Traffic
    endpoint: Endpoint
    api_keys: Sequence[str]
    retried = RETRIED_BY_SEGMENT
    most_messages = 1

    def loads(self, sendings: Iterable[Sending]) -> Iterator[Load]:
        """Yield each alone."""
        return ((sending,) for sending in sendings)

    def request(self, _load: Load, parcels: Sequence[Parcel]) -> tuple[bytes, bytes]:
        """Return what Segment sends."""
        [parcel] = parcels
        headers = segment_headers(self.api_keys[parcel.customer], self.traffic.settings(parcel.customer))
        return self.endpoint.head(headers), parcel.body

    def rejects(self, _load: Load, _parcels: Sequence[Parcel]) -> Mapping[int, tuple[RejectKey, str | None]]:
        """Return none: its answers say themselves what is kept, and Segment does not send it again."""
        return {}

    def ruling(self, reply: Reply, _messages: int) -> Ruling:
        """Read what the status says."""
        is_duplicate = content_of(reply).get("status") == Outcome.DUPLICATE
        end = End.ACCEPTED if _is_success(reply) else End.REFUSED
        return Ruling(verdicts=[Verdict(end=end, text=_text(reply))], duplicates=is_duplicate)


@dataclass(frozen=True, kw_only=True)
class BatchRoute:
    """`POST /v1/batch`: messages of a customer together, with what the batch tells for all of them.

    What is no JSON goes alone, in place of a batch; so does some of it that is made a good batch with a key of nobody.
    """

    traffic: Traffic
    endpoint: Endpoint
    api_keys: Sequence[str]
    most_messages: int = BATCH_MESSAGES
    retried: frozenset[int] = field(default=RETRIED_BY_LIBRARIES, init=False)

    def loads(self, sendings: Iterable[Sending]) -> Iterator[Load]:
        """Yield batches as they become full, and the others at the end."""
        waiting: dict[int, list[Sending]] = defaultdict(list)
        sizes: dict[int, int] = defaultdict(int)
        for sending in sendings:
            parcel = self.traffic.parcel(sending)
            customer = parcel.customer
            if _is_unreadable(parcel):
                yield (sending,)
                continue
            size = len(_entry(parcel))
            if waiting[customer] and sizes[customer] + size > MAX_BATCH_BYTES:
                yield tuple(waiting.pop(customer))
                del sizes[customer]
            waiting[customer].append(sending)
            sizes[customer] += size
            if len(waiting[customer]) == self.most_messages:
                yield tuple(waiting.pop(customer))
                del sizes[customer]
        yield from map(tuple, waiting.values())

    def request(self, load: Load, parcels: Sequence[Parcel]) -> tuple[bytes, bytes]:
        """Return what a library sends: some compressed, some with the key in the body in place of a header."""
        draw = self._draw(load, "request")
        key = self.api_keys[parcels[0].customer]
        headers = {"Content-Type": "application/json", "User-Agent": "analytics-python/2.3.3"}
        fields, entries = self._fields(load, parcels), [_entry(parcel) for parcel in parcels]
        broken = None
        if _is_unreadable(parcels[0]):
            if draw.random() < WRONG_KEY_SHARE:
                key, entries = NOBODYS_KEY, [json.dumps(parcels[0].message).encode()]
            else:
                broken = parcels[0].body
        if draw.random() < WRITE_KEY_SHARE and broken is None:
            fields["writeKey"] = key
        else:
            headers["Authorization"] = "Basic " + base64.b64encode(f"{key}:".encode()).decode()
        body = _batch(entries, fields) if broken is None else broken
        if draw.random() < GZIP_SHARE:
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body, compresslevel=6, mtime=0)
        return self.endpoint.head(headers), body

    def rejects(self, load: Load, parcels: Sequence[Parcel]) -> Mapping[int, tuple[RejectKey, str | None]]:
        """Return those that must be refused and can be read."""
        fields, rejects = self._fields(load, parcels), {}
        for place, parcel in enumerate(parcels):
            if parcel.kind is Kind.INVALID and not _is_unreadable(parcel):
                body = self.traffic.canonical(json.loads(parcel.body), fields).body
                customer_id = self.traffic.customer_ids[parcel.customer]
                key = RejectKey(customer_id=customer_id, body_hash=sha256(f"\n{json_text(repeated(body))}"))
                if body:
                    rejects[place] = key, subject_of(customer_id, body)
        return rejects

    def ruling(self, reply: Reply, messages: int) -> Ruling:
        """Read which messages are rejected; all are refused by an answer that does not tell of each."""
        content = content_of(reply)
        rejected = _rejected(content, messages)
        counts = [content.get(name) for name in ("accepted", "duplicates")]
        told = len(rejected) + sum(count if type(count) is int else -messages for count in counts)
        is_counted = _is_success(reply) or content.get("code") == NothingAccepted.code
        if not is_counted or told != messages:
            text = f"{_text(reply)} (which does not tell of each message)" if is_counted else _text(reply)
            return Ruling(verdicts=[Verdict(end=End.REFUSED, text=text)] * messages)
        verdicts = [rejected.get(place, Verdict(end=End.ACCEPTED)) for place in range(messages)]
        return Ruling(verdicts=verdicts, duplicates=content["duplicates"])

    def _fields(self, load: Load, parcels: Sequence[Parcel]) -> JsonObject:
        """Return what a batch tells for its messages."""
        fields = self.traffic.shared(parcels[0].customer)
        if self._draw(load, "sentAt").random() < SENT_AT_SHARE:
            fields["sentAt"] = sent_at(load[-1])
        return fields

    def _draw(self, load: Load, what: str) -> Random:
        """Return what decides about a batch: the same when it is sent again."""
        return Random(f"{self.traffic.seed}/{load}/{what}")  # noqa: S311 -- to be repeatable, not secret


def is_kept(code: str) -> bool:
    """Whether a message of a batch that was rejected with a code is among the rejects."""
    return code in _KEPT_CODES


def _codes(kind: type[Refusal]) -> Iterator[str]:
    """Yield the codes of what is answered 400, of a kind and below."""
    if "code" in vars(kind) and kind.status == HTTPStatus.BAD_REQUEST:
        yield kind.code
    for below in kind.__subclasses__():
        yield from _codes(below)


_KEPT_CODES = frozenset(_codes(Refusal)) - {MessageTooLarge.code}


def _is_unreadable(parcel: Parcel) -> bool:
    """Whether a body is no JSON in UTF-8, and would break its batch."""
    if parcel.kind is not Kind.INVALID:
        return False
    try:
        json.loads(parcel.body.decode())
    except ValueError:
        return True
    return False


def _entry(parcel: Parcel) -> bytes:
    """Return a message as it stands in a batch; one that is too long only by its escapes is sent with few of them."""
    if len(parcel.body) <= MAX_BATCH_BYTES:
        return parcel.body
    text = json.dumps(parcel.message, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")  # of a lone surrogate this makes what JSON has for it


def _batch(entries: Iterable[bytes], fields: Mapping[str, Any]) -> bytes:
    return b'{"batch":[' + b",".join(entries) + (b"]," if fields else b"]") + json.dumps(fields).encode()[1:]


def content_of(reply: Reply) -> dict[str, Any]:
    """Return the JSON object of an answer, an empty one where it holds none."""
    try:
        content = json.loads(reply.body)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def label_of(reply: Reply) -> str:
    """Name an answer by its status and our word for it: `200 stored`, `503 event_store_unavailable`.

    That for a batch says whether all of its messages were accepted.
    """
    content = content_of(reply)
    word = content.get("code", content.get("status"))
    if word is None and "rejected" in content:
        word = "some_rejected" if content["rejected"] else "none_rejected"
    is_ours = isinstance(word, str) and word.isidentifier() and len(word) <= len("reject_store_unavailable")
    return f"{reply.status} {word}" if is_ours else str(reply.status)


def _is_success(reply: Reply) -> bool:
    return 200 <= reply.status < 300  # noqa: PLR2004 -- RFC 9110: 2xx


def _text(reply: Reply) -> str:
    return f"{reply.status} {content_of(reply).get('message', '')}".strip()


def _rejected(content: Mapping[str, Any], messages: int) -> dict[int, Verdict]:
    """Return what an answer says of messages by their index, each once."""
    rejected: dict[int, Verdict] = {}
    told = content.get("rejected")
    for one in told if isinstance(told, list) else []:
        index = one.get("index") if isinstance(one, dict) else None
        if type(index) is int and 0 <= index < messages:
            code = str(one.get("code", ""))
            rejected[index] = Verdict(end=End.REFUSED, text=f"{code} {one.get('message', '')}".strip(), code=code)
    return rejected
