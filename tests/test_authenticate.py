import base64
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from handler.authenticate import authenticate, authorise, check_live, parse_basic
from handler.errors import (
    CallTypeNotAllowed,
    ExpiredKey,
    KeyStoreUnavailable,
    MissingCredentials,
    NoColon,
    NotBase64,
    NotBasic,
    RevokedKey,
    SuspendedKey,
    Unauthorized,
    UnknownKey,
)
from handler.keys import ApiKey, Status

NOW = datetime(2031, 5, 17, 12, tzinfo=UTC)
PAST = datetime(2031, 5, 17, 11, 59, 59, tzinfo=UTC)
FUTURE = datetime(2031, 5, 17, 12, 0, 1, tzinfo=UTC)


def basic(credentials):
    return "Basic " + base64.b64encode(credentials.encode()).decode()


def api_key(status=Status.ACTIVE, **rest):
    return ApiKey(customer_id="acme", status=status, **rest)


def authenticate_as(found, *, credentials=b"a-key:"):
    keys = SimpleNamespace(find={"a-key": found}.get)
    found = authenticate(parse_basic("Basic " + base64.b64encode(credentials).decode()), keys)
    check_live(found, NOW.timestamp())
    return found


@pytest.mark.parametrize(
    ("authorization", "key"),
    [
        ("Basic c2VnbWVudDo=", "segment"),
        ("basic c2VnbWVudDo=", "segment"),
        ("BASIC c2VnbWVudDo=", "segment"),
        ("  Basic   c2VnbWVudDo= ", "segment"),
        (basic("key:"), "key"),
        (basic("key:password"), "key"),
        (basic("key:pass:word"), "key"),
        (basic(" key :"), "key"),
        (basic("\tkey\r\n:"), "key"),
        (basic("\u00a0key\u00a0:"), "key"),
        (basic("two words:"), "two words"),
        (basic("!\"#$%&'()*+,-./;<=>?@[\\]^_`{|}~:"), "!\"#$%&'()*+,-./;<=>?@[\\]^_`{|}~"),
    ],
)
def test_key_is_the_user_id_without_surrounding_white_space(authorization, key):
    assert parse_basic(authorization) == key


@pytest.mark.parametrize(
    ("authorization", "refusal"),
    [
        (None, MissingCredentials),
        ("", MissingCredentials),
        ("   ", MissingCredentials),
        ("Basic", MissingCredentials),
        ("Basic ", MissingCredentials),
        (basic(":"), MissingCredentials),
        (basic(":password"), MissingCredentials),
        (basic(" \t:"), MissingCredentials),
        ("Bearer c2VnbWVudDo=", NotBasic),
        ("Basics c2VnbWVudDo=", NotBasic),
        ("c2VnbWVudDo=", NotBasic),
        ("Basic segment:", NotBase64),
        ("Basic c2VnbWVudDo", NotBase64),
        ("Basic c2Vn bWVudDo=", NotBase64),
        ("Basic clé", NotBase64),
        (basic("segment"), NoColon),
        (basic(" "), NoColon),
    ],
)
def test_credentials_without_a_key_are_refused_with_their_cause(authorization, refusal):
    with pytest.raises(refusal):
        parse_basic(authorization)


def test_each_401_has_its_own_text_and_code():
    causes = [MissingCredentials, NotBasic, NotBase64, NoColon, UnknownKey, ExpiredKey, RevokedKey]
    assert len({str(cause()) for cause in causes}) == len({cause.code for cause in causes}) == len(causes)
    assert all(cause.status == 401 and issubclass(cause, Unauthorized) for cause in causes)
    assert all(cause.headers["WWW-Authenticate"].startswith('Basic realm="') for cause in causes)


@pytest.mark.parametrize("expires_at", [None, FUTURE])
def test_a_live_key_is_returned(expires_at):
    key = api_key(expires_at=expires_at)
    assert authenticate_as(key) is key


@pytest.mark.parametrize(
    ("found", "refusal"),
    [
        (None, UnknownKey),
        (api_key(Status.REVOKED), RevokedKey),
        (api_key(Status.SUSPENDED), SuspendedKey),
        (api_key(expires_at=PAST), ExpiredKey),
        (api_key(expires_at=NOW), ExpiredKey),
        (api_key(Status.REVOKED, expires_at=PAST), RevokedKey),
        (api_key(Status.SUSPENDED, expires_at=PAST), ExpiredKey),
    ],
)
def test_key_that_is_not_live_is_refused_with_the_cause(found, refusal):
    with pytest.raises(refusal):
        authenticate_as(found)


def test_bytes_that_are_not_text_are_an_unknown_key():
    with pytest.raises(UnknownKey):
        authenticate_as(api_key(), credentials=b"a-key\xff\xfe:")


def test_unreachable_key_store_is_not_401():
    def find(_key):
        raise KeyStoreUnavailable

    with pytest.raises(KeyStoreUnavailable):
        authenticate("a-key", SimpleNamespace(find=find))


@pytest.mark.parametrize("scopes", [None, frozenset({"page"}), frozenset({"track", "page"})])
def test_a_key_may_send_the_call_types_of_its_scope(scopes):
    authorise(api_key(scopes=scopes), "page")


@pytest.mark.parametrize("scopes", [frozenset(), frozenset({"track"})])
def test_a_key_may_not_send_call_types_outside_its_scope(scopes):
    with pytest.raises(CallTypeNotAllowed, match=r"^This API key may not send page calls$") as caught:
        authorise(api_key(scopes=scopes), "page")
    assert caught.value.status == 403
