"""Send messages to the destination: one by one like Segment, or in batches like its server libraries.

Retries: https://segment.com/docs/connections/destinations/#retries and
https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/#errors
"""

import base64
import gzip
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from destination.segment.client import segment_headers
from destination.segment.contract import (
    DUPLICATE,
    KEPT_ALONE,
    KEPT_OF_A_BATCH,
    RETRIED_BY_LIBRARIES,
    RETRIED_BY_SEGMENT,
    STATUS_BY_CODE,
    JsonObject,
)
from destination.segment.due import repeated, stored_body, subject_of
from destination.segment.endpoint import Endpoint, Reply
from destination.simulation.fingerprint import RejectKey, reject_key
from destination.simulation.ledger import End, SentReject
from destination.simulation.traffic import ExpectedRefusal, Parcel, Sending, Traffic, sent_at

LIBRARY_TIMEOUT_SECONDS = 10
"""The time-out of the Node library, the shortest one."""
BATCH_MESSAGES = 100
"""The default batch size of the libraries."""
MAX_BATCH_BYTES = 475_000
"""The Python library's limit, below Segment's of 500 KB; here for the messages alone."""
NOBODYS_KEY = "key-of-nobody"
GZIP_SHARE, SENT_AT_SHARE, WRITE_KEY_SHARE, WRONG_KEY_SHARE = 0.5, 0.7, 0.3, 0.3

Load = tuple[Sending, ...]
"""The messages of one request."""


@dataclass(frozen=True, kw_only=True)
class FinalAnswer:
    """The outcome of a message by a final answer.

    `code` is the reason of a refusal. `answer` is the status and code of the answer, or only the code in a batch.
    `word` is the word in the answer to an accepted single message. `is_kept` says whether the answer claims that a
    refused message is among the rejects, None if it does not say.
    """

    end: End
    text: str = ""
    code: str = ""
    answer: str = ""
    word: str = ""
    is_kept: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Ruling:
    """The content of a final answer: a verdict for each message, and the number of duplicates."""

    verdicts: Sequence[FinalAnswer]
    duplicates: int = 0


class Route(Protocol):
    """The senders who use a route of the destination."""

    @property
    def retried(self) -> frozenset[int]:
        """The statuses after which they retry."""

    @property
    def most_messages(self) -> int:
        """The largest number of messages in a request."""

    def loads(self, sendings: Iterable[Sending]) -> Iterator[Load]:
        """Yield messages that are sent together."""

    def request(self, load: Load, parcels: Sequence[Parcel]) -> tuple[bytes, bytes]:
        """Return head and body, always the same for the same messages."""

    def fields(self, load: Load, parcels: Sequence[Parcel]) -> JsonObject:
        """Return the batch-level fields of a request."""

    def refusals(self, load: Load, parcels: Sequence[Parcel]) -> Sequence[str | None]:
        """Return the expected answer for each message, None for a message that must be accepted."""

    def rejects(self, load: Load, parcels: Sequence[Parcel]) -> Mapping[int, tuple[RejectKey, SentReject]]:
        """Return, by index, the messages that can be kept as rejects."""

    def ruling(self, reply: Reply, messages: int) -> Ruling:
        """Read a final answer to a number of messages."""


@dataclass(frozen=True, kw_only=True)
class SegmentDelivery:
    """`POST /segment`: one message in each request, with the settings of its customer."""

    traffic: Traffic
    endpoint: Endpoint
    api_keys: Sequence[str]
    retried = RETRIED_BY_SEGMENT
    most_messages = 1

    def loads(self, sendings: Iterable[Sending]) -> Iterator[Load]:
        """Yield each message alone."""
        return ((sending,) for sending in sendings)

    def request(self, _load: Load, parcels: Sequence[Parcel]) -> tuple[bytes, bytes]:
        """Return the request that Segment sends."""
        [parcel] = parcels
        headers = segment_headers(self.api_keys[parcel.customer], self.traffic.settings(parcel.customer))
        return self.endpoint.head(headers), parcel.body

    def fields(self, _load: Load, _parcels: Sequence[Parcel]) -> JsonObject:
        """Return nothing: there is no batch."""
        return {}

    def refusals(self, _load: Load, parcels: Sequence[Parcel]) -> Sequence[str | None]:
        """Return the status and the code."""
        return [None if parcel.refusal is None else answer_of(parcel.refusal.alone) for parcel in parcels]

    def rejects(self, load: Load, parcels: Sequence[Parcel]) -> Mapping[int, tuple[RejectKey, SentReject]]:
        """Return messages that a schema must refuse: they are kept as sent, without the key of their source."""
        [parcel], [sending] = parcels, load
        if parcel.refusal is None or parcel.refusal.alone not in KEPT_ALONE:
            return {}
        headers = segment_headers("", self.traffic.settings(parcel.customer))
        customer_id = self.traffic.customer_ids[parcel.customer]
        key = reject_key(customer_id, kept_text(parcel.body), headers.get("X-Segment-Settings", ""))
        subject = subject_by(customer_id, stored_body(parcel.plain))
        return {0: (key, SentReject(sending=sending, subject=subject, code=parcel.refusal.alone))}

    def ruling(self, reply: Reply, _messages: int) -> Ruling:
        """Read the status and the body."""
        content = content_of(reply)
        word, code, kept = (content.get(name) for name in ("status", "code", "kept"))
        verdict = FinalAnswer(
            end=End.ACCEPTED if _is_success(reply) else End.REFUSED,
            text=_text(reply),
            answer=f"{reply.status} {code}" if code else str(reply.status),
            word=f"{reply.status} {word}" if word else str(reply.status),
            is_kept=kept if isinstance(kept, bool) else None,
        )
        return Ruling(verdicts=[verdict], duplicates=word == DUPLICATE)


@dataclass(frozen=True, kw_only=True)
class BatchDelivery:
    """`POST /v1/batch`: messages of a customer together, with their batch-level fields.

    An entry that is not JSON is sent alone, in place of a batch. Some of these are sent as a valid batch with an
    unknown key instead.
    """

    traffic: Traffic
    endpoint: Endpoint
    api_keys: Sequence[str]
    most_messages: int = BATCH_MESSAGES
    retried: frozenset[int] = field(default=RETRIED_BY_LIBRARIES, init=False)

    def loads(self, sendings: Iterable[Sending]) -> Iterator[Load]:
        """Yield batches when they are full, and the rest at the end."""
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
        """Return the request of a library: some compressed, some with the key in the body instead of a header."""
        draw = self._draw(load, "request")
        key = self.api_keys[parcels[0].customer]
        headers = {"Content-Type": "application/json", "User-Agent": "analytics-python/2.3.3"}
        fields, entries = self.fields(load, parcels), [_entry(parcel) for parcel in parcels]
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

    def refusals(self, load: Load, parcels: Sequence[Parcel]) -> Sequence[str | None]:
        """Return the code of a batch message; with the status for an entry that is sent alone."""
        if _is_unreadable(parcels[0]):
            is_nobodys = self._draw(load, "request").random() < WRONG_KEY_SHARE
            return [answer_of("unknown_key" if is_nobodys else _refusal(parcels[0]).alone)]
        return [None if parcel.refusal is None else parcel.refusal.in_batch for parcel in parcels]

    def rejects(self, load: Load, parcels: Sequence[Parcel]) -> Mapping[int, tuple[RejectKey, SentReject]]:
        """Return the readable messages that must be refused: they are kept in the form that would be stored."""
        fields, rejects = self.traffic.stored_fields(parcels[0].customer, self.fields(load, parcels)), {}
        for place, (sending, parcel) in enumerate(zip(load, parcels, strict=True)):
            if parcel.refusal is not None and parcel.refusal.in_batch in KEPT_OF_A_BATCH:
                body = stored_body(parcel.plain, fields)
                customer_id = self.traffic.customer_ids[parcel.customer]
                sent = SentReject(sending=sending, subject=subject_by(customer_id, body), code=parcel.refusal.in_batch)
                rejects[place] = reject_key(customer_id, repeated(body), ""), sent
        return rejects

    def ruling(self, reply: Reply, messages: int) -> Ruling:
        """Read the rejected messages; an answer without details per message refuses all."""
        content = content_of(reply)
        rejected = _rejected(content, messages)
        counts = [content.get(name) for name in ("accepted", "duplicates")]
        told = len(rejected) + sum(count if type(count) is int else -messages for count in counts)
        is_counted = _is_success(reply) or content.get("code") == "nothing_accepted"
        if not is_counted or told != messages:
            text = f"{_text(reply)} (without details per message)" if is_counted else _text(reply)
            answer = " ".join(str(part) for part in (reply.status, content.get("code")) if part)
            return Ruling(verdicts=[FinalAnswer(end=End.REFUSED, text=text, answer=answer)] * messages)
        verdicts = [rejected.get(place, FinalAnswer(end=End.ACCEPTED)) for place in range(messages)]
        return Ruling(verdicts=verdicts, duplicates=content["duplicates"])

    def fields(self, load: Load, parcels: Sequence[Parcel]) -> JsonObject:
        """Return the batch-level fields."""
        fields = self.traffic.shared(parcels[0].customer)
        if self._draw(load, "sentAt").random() < SENT_AT_SHARE:
            fields["sentAt"] = sent_at(load[-1])
        return fields

    def _draw(self, load: Load, what: str) -> Random:
        """Return the random source of a batch: the same when the batch is sent again."""
        return Random(f"{self.traffic.seed}/{load}/{what}")  # noqa: S311 -- repeatable, not secret


def is_kept(code: str) -> bool:
    """Return whether a batch message that was rejected with a code is among the rejects."""
    return code in KEPT_OF_A_BATCH


def answer_of(code: str) -> str:
    """Return the expected answer for a code: `400 invalid_message`."""
    return f"{STATUS_BY_CODE[code]} {code}"


def subject_by(customer_id: str, body: JsonObject) -> str | None:
    """Return the subject of a message that must be refused, None if it has neither id."""
    for kind, name in (("user", "user_id"), ("anonymous", "anonymous_id")):
        if isinstance(body.get(name), str):
            return subject_of(customer_id, kind, body[name])
    return None


def kept_text(body: bytes) -> str:
    """Return the kept text of a body: unchanged, or without the key of its source if it has one."""
    text = body.decode()
    document = json.loads(text)
    if not _names_write_key(document):
        return text
    return json_text(without_write_key(document))


def json_text(document: object) -> str:
    """Return JSON as it is stored: compact, and escaped only where UTF-8 can't encode it."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(document, separators=(",", ":"))
    return text


def without_write_key(document: JsonObject) -> JsonObject:
    """Return a message without the key of its source, in any casing."""
    return {
        name: without_write_key(value) if _may_hold_write_key(name) and isinstance(value, dict) else value
        for name, value in document.items()
        if not is_write_key(name)
    }


def is_write_key(name: str) -> bool:
    """Return whether a name is a source's key, in any casing."""
    return _letters(name) == "writekey" and not name.startswith(("_", "-"))


def _may_hold_write_key(name: str) -> bool:
    return name == "_metadata" or _letters(name) == "context"


def _letters(name: str) -> str:
    return "".join(filter(str.isalpha, name)).lower()


def _names_write_key(document: object) -> bool:
    if isinstance(document, list):
        return any(map(_names_write_key, document))
    if isinstance(document, dict):
        return any(is_write_key(name) or _names_write_key(value) for name, value in document.items())
    return False


def _refusal(parcel: Parcel) -> ExpectedRefusal:
    assert parcel.refusal is not None  # noqa: S101 -- a message that must be refused
    return parcel.refusal


def _is_unreadable(parcel: Parcel) -> bool:
    """Return whether a body is not JSON in UTF-8, and would make its batch invalid."""
    return parcel.refusal is not None and parcel.refusal.in_batch is None


def _entry(parcel: Parcel) -> bytes:
    """Return the JSON text of a message in a batch; with few escapes if they would make it too long."""
    if len(parcel.body) <= MAX_BATCH_BYTES:
        return parcel.body
    text = json.dumps(parcel.message, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")  # for a lone surrogate this produces JSON's escape


def _batch(entries: Iterable[bytes], fields: Mapping[str, Any]) -> bytes:
    return b'{"batch":[' + b",".join(entries) + (b"]," if fields else b"]") + json.dumps(fields).encode()[1:]


def content_of(reply: Reply) -> dict[str, Any]:
    """Return the JSON object in an answer, an empty one without any."""
    try:
        content = json.loads(reply.body)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


MAX_WORD_CHARS = max(map(len, STATUS_BY_CODE))
"""The longest code of an answer. A longer text comes from another server, and would not fit into the report."""


def label_of(reply: Reply) -> str:
    """Return a label for an answer with its status and word: `200 stored`, `503 event_store_unavailable`.

    The label for a batch says whether all of its messages were accepted.
    """
    content = content_of(reply)
    word = content.get("code", content.get("status"))
    if word is None and "rejected" in content:
        word = "some_rejected" if content["rejected"] else "none_rejected"
    is_ours = isinstance(word, str) and word.isidentifier() and len(word) <= MAX_WORD_CHARS
    return f"{reply.status} {word}" if is_ours else str(reply.status)


def _is_success(reply: Reply) -> bool:
    return 200 <= reply.status < 300  # noqa: PLR2004 -- RFC 9110: 2xx


def _text(reply: Reply) -> str:
    return f"{reply.status} {content_of(reply).get('message', '')}".strip()


def _rejected(content: Mapping[str, Any], messages: int) -> dict[int, FinalAnswer]:
    """Return the entries about messages in an answer, by index, each once."""
    rejected: dict[int, FinalAnswer] = {}
    told = content.get("rejected")
    for one in told if isinstance(told, list) else []:
        index = one.get("index") if isinstance(one, dict) else None
        if type(index) is int and 0 <= index < messages:
            code = str(one.get("code", ""))
            text = f"{code} {one.get('message', '')}".strip()
            rejected[index] = FinalAnswer(end=End.REFUSED, text=text, code=code, answer=code)
    return rejected
