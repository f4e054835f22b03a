"""The points about API keys on every route, and about a key that is revoked during use."""

import base64
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import cycle, islice

from destination.certification.examination import WITH_STORES, CheckRequest, Examination
from destination.certification.findings import OURS, STATUS, CheckResult, NotCheckable, failed, passed, warned
from destination.certification.points import Point
from destination.certification.wire import WireExchange, due
from destination.segment.contract import CALL_TYPES, DELETE, JsonObject
from handler.keys import new_key

MAX_KEY_CACHE_SECONDS = 300
"""certify waits no longer than this for a revoked key."""
CACHE_MARGIN_SECONDS = 1.0
"""Added to the cache time of a key, for the duration of a request."""
OUT_OF_SCOPE = "call_type_not_allowed"
USES = 5
"""Requests with a key before and after its revocation: several functions may cache it."""


@dataclass(frozen=True, kw_only=True)
class _Bad:
    """Credentials that must be refused with a code."""

    what: str
    code: str
    authorization: str | None


def _malformed(examination: Examination) -> Iterator[_Bad]:
    """Yield credentials without a key."""
    marks = examination.marks
    yield _Bad(what="no credentials", code="missing_credentials", authorization=None)
    yield _Bad(what="another scheme", code="not_basic", authorization=f"Bearer {marks['credentials']}")
    yield _Bad(what="no base64", code="not_base64", authorization=f"Basic {marks['credentials']}!")
    yield _Bad(what="no colon", code="no_colon", authorization=f"Basic {marks['credentials in base64']}")
    yield _Bad(what="an empty key", code="missing_credentials", authorization=_basic(""))


def _bad_keys(examination: Examination) -> Iterator[_Bad]:
    """Yield keys that must be refused."""
    keys = examination.keys
    unknown = new_key()
    examination.wire.keep_secret(unknown)
    yield _Bad(what="an unknown key", code="unknown_key", authorization=_basic(unknown))
    for name, key in (("expired", keys.expired), ("revoked", keys.revoked), ("suspended", keys.suspended)):
        if key is not None:
            yield _Bad(what=f"a key that is {name}", code=f"{name}_key", authorization=_basic(key))


def _basic(key: str) -> str:
    return f"Basic {base64.b64encode(f'{key}:'.encode()).decode()}"


def _routes(examination: Examination) -> Iterator[tuple[str, JsonObject]]:
    """Yield the routes of Segment's libraries, each with a valid body."""
    for call_type in CALL_TYPES:
        if call_type != DELETE and examination.call(call_type).is_accepted:
            message = examination.personal(call_type)
            yield f"/v1/{call_type}", {name: value for name, value in message.items() if name != "type"}
    yield "/v1/batch", {"batch": [examination.personal()]}
    yield "/v1/import", {"batch": [examination.personal()]}


def _on_each_route(examination: Examination) -> CheckResult:
    """Send bad credentials to each route of libraries: all bad keys to one route, some of each kind to the others."""
    examination.need_libraries()
    tried: list[tuple[str, _Bad]] = []
    sendings = []
    malformed, bad_keys = cycle(_malformed(examination)), cycle(_bad_keys(examination))
    for path, body in _routes(examination):
        keys = _bad_keys(examination) if path == "/v1/batch" else islice(bad_keys, 2)
        for credentials in (next(malformed), *keys):
            headers = examination.headers()
            del headers["Authorization"]
            if credentials.authorization is not None:
                headers["Authorization"] = credentials.authorization
            tried.append((path, credentials))
            sendings.append(CheckRequest(body, headers, target=examination.target(path)))
    bad = {
        f"{path} with {credentials.what} {exchange.came}; expected: {due(credentials.code)}": exchange
        for (path, credentials), exchange in zip(tried, examination.post_all(sendings), strict=True)
        if exchange.came != due(credentials.code)
    }
    return _judged(bad, len(tried))


def _scope_on_each_route(examination: Examination) -> CheckResult:
    """Send call types outside a key's scope to each route of the libraries."""
    examination.need_libraries()
    key = examination.keys.scoped
    if key is None or examination.store_access is None:
        raise NotCheckable(f"no scoped key is known: {WITH_STORES}")
    carrier = examination.carrier
    others = [name for name in CALL_TYPES if name in examination.store_access.call_types - {carrier, DELETE}]
    bodies: dict[str, JsonObject] = {}
    for path, body in _routes(examination):
        if "batch" not in body and path != f"/v1/{carrier}":
            bodies[path] = body
        elif "batch" in body and others:
            bodies[path] = {"batch": [examination.personal(others[0])]}
    if not bodies:
        raise NotCheckable("only one call type is supported here, which the scoped key may send")
    headers = examination.headers(key)
    exchanges = examination.post_all(
        CheckRequest(body, headers, target=examination.target(path)) for path, body in bodies.items()
    )
    bad = {
        f"{path} with a key for {carrier} calls only {exchange.came}; expected: {due(OUT_OF_SCOPE)}": exchange
        for path, exchange in zip(bodies, exchanges, strict=True)
        if not _is_out_of_scope(exchange, is_batch="batch" in bodies[path])
    }
    return _judged(bad, len(bodies))


def _is_out_of_scope(exchange: WireExchange, *, is_batch: bool) -> bool:
    """Return whether a message was refused for its call type; the answer to a batch has that per message."""
    if not is_batch:
        return exchange.came == due(OUT_OF_SCOPE)
    rejected = exchange.answer.get("rejected")
    codes = [one.get("code") for one in rejected if isinstance(one, dict)] if isinstance(rejected, list) else []
    return exchange.came == due("nothing_accepted") and codes == [OUT_OF_SCOPE]


def _judged(bad: dict[str, WireExchange], count: int) -> CheckResult:
    if bad:
        return failed(f"{len(bad)} of {count} were answered differently: {'; '.join(bad)}", *bad.values())
    return passed(f"{count} of {count} were refused with the expected code")


def begin(examination: Examination, wanted: Collection[str]) -> None:
    """Revoke a used key early, so that its cache time is over soon."""
    if {"auth.revoke-in-use", REVOKED_IN_TIME.id} & set(wanted):
        _revoke(examination)


def _revoke(examination: Examination) -> None:
    """Use a key and revoke it, once in a run."""
    if examination.revoked_at is not None:
        return
    store_access, key = examination.store_access, examination.keys.used
    if store_access is None or key is None:
        raise NotCheckable(f"no key is known that could be revoked: {WITH_STORES}")
    if not store_access.target.stores.key_cache_seconds:
        raise NotCheckable("this stack has no output KeyCacheSeconds: deploy this version of template.yaml")
    headers = examination.headers(key)
    for exchange in examination.post_all_valid(CheckRequest(examination.message(), headers) for _ in range(USES)):
        if not exchange.is_accepted:
            raise NotCheckable(f"the key was not accepted before it was revoked ({exchange.came})")
    store_access.revoke(key)
    examination.revoked_at = time.monotonic()


def _revoke_in_use(examination: Examination) -> CheckResult:
    """Revoke a used key; it is tried again at the end of the run, when no function may cache it any more."""
    _revoke(examination)
    return passed("a key was used, and then revoked: auth.revoked-in-time shows whether it is refused")


def _revoked_in_time(examination: Examination) -> CheckResult:
    """Wait until a revoked key may not be cached any more, and send with it."""
    _revoke(examination)
    store_access, key = examination.store_access, examination.keys.used
    assert store_access is not None and examination.revoked_at is not None  # noqa: S101, PT018 -- without, nothing is revoked
    seconds = int(store_access.target.stores.key_cache_seconds)
    if seconds > MAX_KEY_CACHE_SECONDS:
        raise NotCheckable(f"KeyCacheSeconds is {seconds}, and certify waits for {MAX_KEY_CACHE_SECONDS} s at most")
    time.sleep(max(0.0, examination.revoked_at + seconds + CACHE_MARGIN_SECONDS - time.monotonic()))
    accepted: list[WireExchange] = []
    headers = examination.headers(key)
    for _ in range(2):  # a function that can't read the key table may use its cache for longer
        exchanges = examination.post_all(CheckRequest(examination.personal(), headers) for _ in range(USES))
        wrong = [one for one in exchanges if one.came != due("revoked_key") and not one.is_accepted]
        if wrong:
            return failed(f"answered {wrong[0].came}; expected: {due('revoked_key')}", *wrong)
        taken = [exchange for exchange in exchanges if exchange.is_accepted]
        if not taken:
            says = f"refused {seconds} s after it was revoked, which is KeyCacheSeconds"
            return (
                warned(f"{says}; {len(accepted)} requests were accepted once", *accepted) if accepted else passed(says)
            )
        accepted += taken
    return failed(
        f"{len(accepted)} of {2 * USES} requests were accepted, {seconds} s (KeyCacheSeconds) and more after the key "
        "was revoked",
        *accepted,
    )


REMEDY_ROUTES = "Route all paths to this function, which checks the key first; docs/reference/answers.md."
POINTS = (
    Point(
        id="auth.libraries",
        title="Bad credentials are refused on the routes of libraries too",
        source=STATUS,
        remedy=REMEDY_ROUTES,
        check=_on_each_route,
    ),
    Point(
        id="auth.libraries-scope",
        title="A key's scope counts on the routes of libraries too",
        source=STATUS,
        remedy=REMEDY_ROUTES,
        check=_scope_on_each_route,
    ),
    Point(
        id="auth.revoke-in-use",
        title="A key works until it is revoked",
        source=OURS,
        remedy="Find out why a new key is not accepted: docs/explanation/reliability.md, The key table.",
        check=_revoke_in_use,
    ),
)
REVOKED_IN_TIME = Point(
    id="auth.revoked-in-time",
    title="A revoked key is refused after KeyCacheSeconds",
    source=OURS,
    remedy="Cache a key for KeyCacheSeconds after a read; use must not extend it. docs/explanation/reliability.md.",
    check=_revoked_in_time,
)
"""One of the last points, so that most of the wait has passed."""
