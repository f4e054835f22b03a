"""Step 1: authenticate the request by an API key (Basic credentials, RFC 7617), and authorise its call types."""

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
"""White space and invisible characters, which people paste around keys."""


def authenticate(key: str, keys: KeyStore) -> ApiKey:
    """Return the stored facts of an API key, live or not; raises `UnknownKey` or `KeyStoreUnavailable`."""
    return _known(keys.find(key))


def confirm(api_key: ApiKey, keys: KeyStore) -> ApiKey:
    """Return the current facts of a key, fresh enough for a final refusal; raises like `authenticate`."""
    return _known(keys.confirm(api_key))


def _known(api_key: ApiKey | None) -> ApiKey:
    if api_key is None:
        raise UnknownKey
    return api_key


def check_live(api_key: ApiKey, now: float) -> None:
    """Raise `RevokedKey`, `ExpiredKey` or `SuspendedKey` if the key is not live; `now` is in seconds since 1970."""
    if api_key.status is Status.REVOKED:
        raise RevokedKey
    if api_key.has_expired(now):
        raise ExpiredKey
    if api_key.status is Status.SUSPENDED:
        raise SuspendedKey


def parse_basic(authorization: str | None) -> str:
    """Return the user-id of an `Authorization` header, without the white space that people paste around keys.

    The password is ignored; Segment leaves it empty. Bytes that are not UTF-8 are replaced by a character that no key
    contains.
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
    """Return an API key that was sent in a body, without the white space that people paste around keys."""
    key = (write_key or "").strip(BLANK)
    if not key:
        raise MissingCredentials(f"{MissingCredentials.text}, or as writeKey in the body")
    return key


def authorise(api_key: ApiKey, call_type: str) -> None:
    """Raise `CallTypeNotAllowed` if the key's scope does not include the call type."""
    if api_key.scopes is not None and call_type not in api_key.scopes:
        raise CallTypeNotAllowed(call_type)
