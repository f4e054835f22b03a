"""The names of Segment's spec, and how the product stores them: literal tables, like the contract.

Segment does not guarantee a casing, so the product stores the spec's names in snake_case. All other names belong to the
customer and stay as they are.

https://segment.com/docs/connections/spec/common/
"""

TOP_NAMES = {
    "anonymousId": "anonymous_id",
    "userId": "user_id",
    "messageId": "message_id",
    "type": "type",
    "version": "version",
    "channel": "channel",
    "projectId": "project_id",
    "_metadata": "_metadata",
    "timestamp": "timestamp",
    "originalTimestamp": "original_timestamp",
    "sentAt": "sent_at",
    "receivedAt": "received_at",
    "context": "context",
    "integrations": "integrations",
    "traits": "traits",
    "event": "event",
    "properties": "properties",
    "name": "name",
    "category": "category",
    "groupId": "group_id",
    "previousId": "previous_id",
}
"""Fields at the top of a message: spelling of the spec -> stored name. `writeKey` is never stored."""

CONTEXT_NAMES = {
    "active": "active",
    "app": "app",
    "campaign": "campaign",
    "channel": "channel",
    "device": "device",
    "externalIds": "external_ids",
    "groupId": "group_id",
    "ip": "ip",
    "library": "library",
    "locale": "locale",
    "location": "location",
    "network": "network",
    "os": "os",
    "page": "page",
    "referrer": "referrer",
    "screen": "screen",
    "timezone": "timezone",
    "traits": "traits",
    "userAgent": "user_agent",
    "userAgentData": "user_agent_data",
}
"""Fields of `context`: the spec's spelling -> stored name."""

CONTEXT_OBJECT_NAMES = {
    "app": {
        "build": "build",
        "name": "name",
        "namespace": "namespace",
        "version": "version",
    },
    "campaign": {
        "content": "content",
        "medium": "medium",
        "name": "name",
        "source": "source",
        "term": "term",
    },
    "device": {
        "adTrackingEnabled": "ad_tracking_enabled",
        "advertisingId": "advertising_id",
        "id": "id",
        "manufacturer": "manufacturer",
        "model": "model",
        "name": "name",
        "token": "token",
        "type": "type",
        "version": "version",
    },
    "library": {
        "name": "name",
        "version": "version",
    },
    "location": {
        "city": "city",
        "country": "country",
        "latitude": "latitude",
        "longitude": "longitude",
        "region": "region",
        "speed": "speed",
    },
    "network": {
        "bluetooth": "bluetooth",
        "carrier": "carrier",
        "cellular": "cellular",
        "wifi": "wifi",
    },
    "os": {
        "name": "name",
        "version": "version",
    },
    "page": {
        "path": "path",
        "referrer": "referrer",
        "search": "search",
        "title": "title",
        "url": "url",
    },
    "referrer": {
        "id": "id",
        "link": "link",
        "name": "name",
        "type": "type",
        "url": "url",
    },
    "screen": {
        "density": "density",
        "height": "height",
        "width": "width",
    },
    "userAgentData": {
        "bitness": "bitness",
        "brands": "brands",
        "fullVersionList": "full_version_list",
        "mobile": "mobile",
        "model": "model",
        "platform": "platform",
        "platformVersion": "platform_version",
        "uaFullVersion": "ua_full_version",
        "wow64": "wow64",
    },
}
"""Fields of objects in `context`, by the spec's name of the object: the spec's spelling -> stored name."""

OLD_ALIAS_NAMES = {"from": "previousId", "to": "userId"}
"""The old names of two fields of an `alias` call -> the current names."""

WRITE_KEY = "writeKey"
"""The field with the key of a source. Some libraries send it at the top, in `context` or in `_metadata`; it is never
stored."""
