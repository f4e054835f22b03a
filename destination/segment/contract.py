"""The contract as literal tables: the due answers, and whether their senders retry.

The proofs (`destination simulate`, `destination certify`) judge the product by these tables. So the tables are written
out here and not imported from `handler/`: a faulty handler must not judge itself.

Sources: https://segment.com/docs/connections/destinations/#retries and
https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/#errors
"""

from typing import Any

JsonObject = dict[str, Any]
"""A JSON object as Python's `json` reads it."""

DELETE = "delete"
"""The call type that asks to erase a user."""
CALL_TYPES = ("identify", "track", "page", "screen", "group", "alias", DELETE)
"""https://segment.com/docs/connections/spec/"""

SEGMENT_PATH = "/segment"
"""The route of the Direct destination."""
CALL_PATHS = tuple(f"/v1/{call_type}" for call_type in CALL_TYPES if call_type != DELETE)
BATCH_PATH, IMPORT_PATH = BATCH_PATHS = ("/v1/batch", "/v1/import")
"""https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/"""

RETRIED_BY_LIBRARIES = frozenset({408, 429, *range(500, 600)} - {501})
RETRIED_BY_SEGMENT = RETRIED_BY_LIBRARIES | {423}
"""Every other answer is final. 408, 423 and 501 come from Segment's open framework, the others from its pages."""

STORED, DUPLICATE, QUEUED = "stored", "duplicate", "queued"
"""The field `status` in the answer to an accepted message."""

ANSWERS_TO_MESSAGES = frozenset({"200 stored", "200 duplicate"})
ANSWERS_TO_DELETES = frozenset({"202 stored", "202 duplicate"})
ANSWERS_BY_QUEUE = frozenset({"202 queued"})
"""The successes of `POST /segment` with their statuses: with a table, with a table for a `delete`, and with a queue."""

STATUS_BY_CODE = {
    "invalid_encoding": 400,
    "invalid_json": 400,
    "not_an_object": 400,
    "nested_too_deeply": 400,
    "number_out_of_range": 400,
    "message_too_large": 400,
    "batch_too_large": 400,
    "missing_batch": 400,
    "nothing_accepted": 400,
    "missing_type": 400,
    "wrong_type": 400,
    "invalid_settings": 400,
    "invalid_message": 400,
    "missing_credentials": 401,
    "not_basic": 401,
    "not_base64": 401,
    "no_colon": 401,
    "unknown_key": 401,
    "expired_key": 401,
    "revoked_key": 401,
    "suspended_key": 403,
    "call_type_not_allowed": 403,
    "user_erased": 403,
    "internal_error": 500,
    "unsupported_call_type": 501,
    "maintenance": 503,
    "key_store_unavailable": 503,
    "event_store_unavailable": 503,
    "reject_store_unavailable": 503,
    "erasure_store_unavailable": 503,
    "deadline_close": 503,
}
"""The codes of all error answers, with the status of each; docs/reference/answers.md explains them."""

KEPT_OF_A_BATCH = frozenset(
    {"invalid_message", "missing_type", "number_out_of_range", "wrong_type", "invalid_settings", "internal_error"}
)
"""Codes of batch messages that are kept among the rejects: the message is readable, and refused for its content."""
KEPT_ALONE = frozenset({"invalid_message", "invalid_settings"})
"""Codes of single messages that are kept among the rejects: a schema refused them."""

STORE_FAULT_CODES = frozenset(
    {"key_store_unavailable", "event_store_unavailable", "reject_store_unavailable", "erasure_store_unavailable"}
)
"""Codes of store faults; without a fault of a store, none of them may occur often."""

MAX_BATCH_MESSAGES = 2500
"""https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/#batch"""
