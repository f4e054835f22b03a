"""Step 3: a payload in any casing -> messages in the spec's words, spelled in snake_case.

Segment promises no casing (`userId`, `user_id`, `UserID`, `"User ID"`, `user-id` are one field), so the spec's fields
at the top and in `context` are matched by their letters alone. Keys inside `traits`, `properties` and `integrations`
are the customer's own and stay as they are, as do unknown fields anywhere.

The fields: https://segment.com/docs/connections/spec/common/
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from handler.decode import JsonObject

CALL_TYPES = ("identify", "track", "page", "screen", "group", "alias", "delete")

UNDATED = "undated"
"""Stands for the time of a message that has none that can be read; sorts after all times."""
DERIVED_ID_PREFIX = "derived-"
CONFLICTS = "_conflicts"
"""Where the other values of a field go that arrived in several spellings with different values."""

MAX_NAME_CHARS = 64
"""A longer name is no spelling of a field of the spec; the longest of those has 17 letters."""

OBJECT_FIELDS = ("context", "integrations", "properties", "traits")
ID_FIELDS = ("anonymous_id", "group_id", "message_id", "previous_id", "user_id")


def snake_case(name: str) -> str:
    """Spell one of the spec's camelCase names as it is stored: `userId` -> `user_id`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _fold(name: str) -> str:
    """Reduce a name to what all its spellings share; a leading underscore counts (`_metadata`)."""
    name = name.strip()
    return name[:1].lower() + re.sub(r"[\s_-]", "", name[1:]).lower()


class _Fields:
    """A set of the spec's names, each of which is found by any of its spellings."""

    def __init__(self, spec_names: Iterable[str]) -> None:
        self.spelling = {snake_case(name): name for name in spec_names}
        """Canonical name -> the spec's own spelling."""
        self._by_letters = {_fold(name): snake_case(name) for name in self.spelling.values()}
        self._find = lru_cache(maxsize=1024)(lambda name: self._by_letters.get(_fold(name)))

    def canonical(self, name: str) -> str | None:
        """Return the canonical name of a field, None for one that the spec does not know."""
        return self._find(name) if len(name) <= MAX_NAME_CHARS else None

    def rank(self, name: str) -> tuple[int, str]:
        """Order the spellings of one field: the spec's own is believed first, then ours, then by the alphabet."""
        canonical = self.canonical(name)
        return (0 if self.spelling.get(canonical or "") == name else 1 if name == canonical else 2, name)


TOP = _Fields(
    (
        *("anonymousId", "userId", "messageId", "type", "version", "channel", "projectId", "writeKey", "_metadata"),
        *("timestamp", "originalTimestamp", "sentAt", "receivedAt", "context", "integrations"),
        *("traits", "event", "properties", "name", "category", "groupId", "previousId"),
    )
)
ALIAS_TOP = {"from": "previous_id", "to": "user_id"}
"""The old names of the two fields of an alias call; they give way to the present ones."""

CONTEXT = _Fields(
    (
        *("active", "app", "campaign", "channel", "device", "externalIds", "groupId", "ip", "library", "locale"),
        *("location", "network", "os", "page", "referrer", "screen", "timezone", "traits", "userAgent"),
        "userAgentData",
    )
)
CONTEXT_OBJECTS = {
    "app": _Fields(("build", "name", "namespace", "version")),
    "campaign": _Fields(("content", "medium", "name", "source", "term")),
    "device": _Fields(
        (
            *("adTrackingEnabled", "advertisingId", "id", "manufacturer", "model", "name", "token", "type"),
            "version",
        )
    ),
    "library": _Fields(("name", "version")),
    "location": _Fields(("city", "country", "latitude", "longitude", "region", "speed")),
    "network": _Fields(("bluetooth", "carrier", "cellular", "wifi")),
    "os": _Fields(("name", "version")),
    "page": _Fields(("path", "referrer", "search", "title", "url")),
    "referrer": _Fields(("id", "link", "name", "type", "url")),
    "screen": _Fields(("density", "height", "width")),
    "user_agent_data": _Fields(
        (
            *("bitness", "brands", "fullVersionList", "mobile", "model", "platform", "platformVersion"),
            *("uaFullVersion", "wow64"),
        )
    ),
}


@dataclass(frozen=True, kw_only=True)
class Message:
    """One canonical message.

    `body` is what is validated, stored and passed on. `time` is the part of its identity that tells when: sortable UTC
    made only of what every resend repeats, or `UNDATED`. `timestamp` is when it happened as far as Segment can tell,
    sortable too, None where it tells no time that can be read; it shifts a little between resends.
    """

    body: JsonObject
    time: str
    timestamp: str | None

    @property
    def type(self) -> object:
        """The call type, of which nothing is known before `check_call_type`."""
        return self.body.get("type")

    @property
    def message_id(self) -> str:
        """The message id, which is certain to be a string only after `validate`."""
        message_id: str = self.body["message_id"]
        return message_id


def canonicalise(payload: Mapping[str, Any]) -> list[Message]:
    """Return the messages of a payload. Never refuses: what is odd stays as it is, for `validate` to judge."""
    body = _rename({name: value for name, value in payload.items() if TOP.canonical(name) != "write_key"}, TOP)
    body = {name: value for name, value in body.items() if not (value is None and name in TOP.spelling)}
    if isinstance(body.get("type"), str):
        body["type"] = body["type"].lower()
    if body.get("type") == "alias":
        _rename_alias(body)
    for name in ID_FIELDS:
        _settle_id(body, name)
    for name in OBJECT_FIELDS:
        if body.get(name) == []:
            body[name] = {}  # how PHP spells an empty object
    if isinstance(body.get("context"), dict):
        body["context"] = _canonical_context(body["context"])
    body.setdefault("message_id", _derive_message_id(body))
    return [Message(body=body, time=_identity_time(body), timestamp=_timestamp(body))]


def _rename(source: Mapping[str, Any], fields: _Fields) -> JsonObject:
    """Spell the spec's fields canonically. Of several spellings one wins, and the others' values go to `CONFLICTS`."""
    spellings: dict[str, list[str]] = {}
    for name in source:
        spellings.setdefault(fields.canonical(name) or name, []).append(name)
    renamed: JsonObject = {}
    lost: JsonObject = {}
    for canonical, names in spellings.items():
        if len(names) > 1:
            names.sort(key=lambda name: (source[name] in (None, ""), fields.rank(name)))
        renamed[canonical] = source[names[0]]
        lost.update((name, source[name]) for name in names[1:] if not _same(source[name], renamed[canonical]))
    if lost:
        if CONFLICTS in renamed:
            lost[CONFLICTS] = renamed[CONFLICTS]
        renamed[CONFLICTS] = lost
    return renamed


def _same(value: object, winner: object) -> bool:
    """Whether dropping a value for the winner loses nothing; in Python `1 == True`, in JSON not."""
    return value in (None, "") or json.dumps(value, sort_keys=True) == json.dumps(winner, sort_keys=True)


def _rename_alias(body: JsonObject) -> None:
    for name in sorted(name for name in body if _fold(name) in ALIAS_TOP):
        target = ALIAS_TOP[_fold(name)]
        if body[name] in (None, ""):
            del body[name]
        elif body.get(target) in (None, "", body[name]):
            body[target] = body.pop(name)


def _settle_id(body: JsonObject, name: str) -> None:
    """Make an integer id its decimal string, and drop an empty one."""
    value = body.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        body[name] = str(value)
    elif value == "":
        del body[name]


def _canonical_context(context: JsonObject) -> JsonObject:
    context = _rename(context, CONTEXT)
    for name, fields in CONTEXT_OBJECTS.items():
        if isinstance(context.get(name), dict):
            context[name] = _rename(context[name], fields)
    return context


def _derive_message_id(body: JsonObject) -> str:
    """Hash what every resend of a message repeats.

    Segment computes `timestamp` anew from `sentAt` and `receivedAt` wherever there is an `originalTimestamp`.
    """
    shifting = {"sent_at", "received_at", "_metadata"}
    if "original_timestamp" in body:
        shifting.add("timestamp")
    repeated = {name: value for name, value in body.items() if name not in shifting}
    lost = repeated.pop(CONFLICTS, None)
    if isinstance(lost, dict):
        lost = {name: value for name, value in lost.items() if TOP.canonical(name) not in shifting}
    if lost:
        repeated[CONFLICTS] = lost
    text = json.dumps(repeated, sort_keys=True, separators=(",", ":"))
    return DERIVED_ID_PREFIX + hashlib.sha256(text.encode()).hexdigest()


def _identity_time(body: JsonObject) -> str:
    return parse_time(body.get("original_timestamp", body.get("timestamp"))) or UNDATED


def _timestamp(body: JsonObject) -> str | None:
    times = (parse_time(body.get(name)) for name in ("timestamp", "original_timestamp", "received_at"))
    return next((time for time in times if time), None)


_GO_TIME = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?) ([+-]\d{4}) \S+(?: m=[+-]\d+\.\d+)?")
"""What Go's `time.Time.String` prints: `2020-05-09 23:54:49.2 +0000 UTC m=+70366.29`. https://pkg.go.dev/time"""


def parse_time(value: object) -> str | None:
    """Return an ISO 8601 (or Go) time as sortable UTC, `2020-05-09T23:54:49.200000Z`; None when it can't be read.

    A time without an offset is taken for UTC. Digits below microseconds are cut off.
    """
    if not isinstance(value, str):
        return None
    go_time = _GO_TIME.fullmatch(value)
    try:
        time = datetime.fromisoformat("".join(go_time.groups()) if go_time else value.strip().upper())
        return sortable(time.replace(tzinfo=time.tzinfo or UTC))
    except (ValueError, OverflowError):
        return None


def sortable(time: datetime) -> str:
    """Spell a time so that text sorts as time does: `2020-05-09T23:54:49.200000Z`; raises `OverflowError`."""
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
