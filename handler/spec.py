"""The field names of Segment's spec, and how they are recognised in any spelling.

Segment does not guarantee a casing: `userId`, `user_id`, `UserID`, `"User ID"` and `user-id` are one field. So the
spec's names are compared by their letters only, and stored in snake_case.

https://segment.com/docs/connections/spec/common/
"""

import re
from collections.abc import Iterable, Mapping

DELETE = "delete"
"""The call type that is not a user's message, but a request to erase the user."""
CALL_TYPES = ("identify", "track", "page", "screen", "group", "alias", DELETE)
SETTINGS = "settings"
"""The name of the schema for settings; the other schemas are named after call types."""

MAX_NAME_CHARS = 64
"""A longer name can't be a field of the spec; the longest one has 17 letters."""
MAX_REMEMBERED_NAMES = 1024
"""Per set of fields. Messages have far fewer different names, but a caller can send any number."""


def snake_case(name: str) -> str:
    """Return a camelCase name of the spec as it is stored: `userId` -> `user_id`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def fold(name: str) -> str:
    """Reduce a name to the part that all its spellings share; a leading underscore counts (`_metadata`)."""
    letters = "".join(name.replace("_", " ").replace("-", " ").split()).lower()
    begin = name.lstrip()[:1]
    return begin + letters if begin in ("_", "-") else letters


class _Names(dict[str, str | None]):
    """Maps any spelling of a name to the canonical one, or to None for a name that is not in the spec.

    It begins with the spec's own spelling and the canonical one. Other spellings are looked up once, and remembered
    while there is room.
    """

    def __init__(self, spelling: Mapping[str, str]) -> None:
        super().__init__({name: canonical for canonical, spec in spelling.items() for name in (canonical, spec)})
        self._by_letters = {fold(spec): canonical for canonical, spec in spelling.items()}

    def __missing__(self, name: str) -> str | None:
        if len(name) > MAX_NAME_CHARS:
            return None
        canonical = self._by_letters.get(fold(name))
        if len(self) < MAX_REMEMBERED_NAMES:
            self[name] = canonical
        return canonical


class Fields:
    """A set of the spec's names, each found by any of its spellings."""

    def __init__(self, spec_names: Iterable[str]) -> None:
        self.spelling = {snake_case(name): name for name in spec_names}
        """Canonical name -> the spec's own spelling."""
        self.canonical = _Names(self.spelling)
        """Any spelling -> canonical name, or None if the spec does not have the name."""

    def rank(self, name: str, canonical: str) -> tuple[int, str]:
        """Return a sort key for spellings of one field: the spec's first, then the canonical one, then the rest."""
        return (0 if self.spelling.get(canonical) == name else 1 if name == canonical else 2, name)


TOP = Fields(
    (
        *("anonymousId", "userId", "messageId", "type", "version", "channel", "projectId", "writeKey", "_metadata"),
        *("timestamp", "originalTimestamp", "sentAt", "receivedAt", "context", "integrations"),
        *("traits", "event", "properties", "name", "category", "groupId", "previousId"),
    )
)
BATCH = Fields(("batch",))
ALIAS_TOP = {"from": "previous_id", "to": "user_id"}
"""The old names of two fields of an alias call; the current names take precedence."""

CONTEXT = Fields(
    (
        *("active", "app", "campaign", "channel", "device", "externalIds", "groupId", "ip", "library", "locale"),
        *("location", "network", "os", "page", "referrer", "screen", "timezone", "traits", "userAgent"),
        "userAgentData",
    )
)
CONTEXT_OBJECTS = {
    "app": Fields(("build", "name", "namespace", "version")),
    "campaign": Fields(("content", "medium", "name", "source", "term")),
    "device": Fields(
        (
            *("adTrackingEnabled", "advertisingId", "id", "manufacturer", "model", "name", "token", "type"),
            "version",
        )
    ),
    "library": Fields(("name", "version")),
    "location": Fields(("city", "country", "latitude", "longitude", "region", "speed")),
    "network": Fields(("bluetooth", "carrier", "cellular", "wifi")),
    "os": Fields(("name", "version")),
    "page": Fields(("path", "referrer", "search", "title", "url")),
    "referrer": Fields(("id", "link", "name", "type", "url")),
    "screen": Fields(("density", "height", "width")),
    "user_agent_data": Fields(
        (
            *("bitness", "brands", "fullVersionList", "mobile", "model", "platform", "platformVersion"),
            *("uaFullVersion", "wow64"),
        )
    ),
}
