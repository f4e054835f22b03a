"""Step 1: who sends this? Basic credentials (RFC 7617) to the API key of a customer, and what that key may do."""

import base64
import binascii
import string

from handler.errors import (
    CallTypeNotAllowed,
    ExpiredKey,
    MissingCredentials,
    NoColon,
    NotBase64,
    NotBasic,
    RevokedKey,
    SuspendedKey,
    UnknownKey,
)
from handler.keys import ApiKey, KeyStore, Status

BLANK = string.whitespace + "\u00a0\u200b\u2060\ufeff"
"""What people paste around keys: white space, and characters that can't be seen."""


def authenticate(key: str, keys: KeyStore) -> ApiKey:
    """Return what is known of an API key, live or not; raises `UnknownKey` or `KeyStoreUnavailable`."""
    return _known(keys.find(key))


def confirm(api_key: ApiKey, keys: KeyStore) -> ApiKey:
    """Return what is known of a key just now, on which a final refusal may rest; raises as `authenticate` does."""
    return _known(keys.confirm(api_key))


def _known(api_key: ApiKey | None) -> ApiKey:
    if api_key is None:
        raise UnknownKey
    return api_key


def check_live(api_key: ApiKey, now: float) -> None:
    """Raise `RevokedKey`, `ExpiredKey` or `SuspendedKey` for a key that is; `now` is in seconds since 1970."""
    if api_key.status is Status.REVOKED:
        raise RevokedKey
    if api_key.has_expired(now):
        raise ExpiredKey
    if api_key.status is Status.SUSPENDED:
        raise SuspendedKey


def parse_basic(authorization: str | None) -> str:
    """Return the user-id of an `Authorization` header, without the white space that people paste around keys.

    The password, which Segment leaves empty, is ignored. What is not UTF-8 can't be part of a key, and is kept as what
    no key holds.
    """
    if authorization is None or not authorization.strip():
        raise MissingCredentials
    scheme, _, token = authorization.strip().partition(" ")
    if scheme.lower() != "basic":
        raise NotBasic
    try:
        credentials = base64.b64decode(token.strip(), validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError) as error:
        raise NotBase64 from error
    user_id, colon, _password = credentials.partition(":")
    if not credentials:
        raise MissingCredentials
    if not colon:
        raise NoColon
    key = user_id.strip(BLANK)
    if not key:
        raise MissingCredentials
    return key


def parse_write_key(write_key: str | None) -> str:
    """Return a key that came in a body, likewise."""
    key = (write_key or "").strip(BLANK)
    if not key:
        raise MissingCredentials(f"{MissingCredentials.text}, or as writeKey in the body")
    return key


def authorise(api_key: ApiKey, call_type: str) -> None:
    """Raise `CallTypeNotAllowed` where the scope of the key leaves the call type out."""
    if api_key.scopes is not None and call_type not in api_key.scopes:
        raise CallTypeNotAllowed(call_type)
