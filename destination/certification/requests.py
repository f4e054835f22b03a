"""The points about single requests: refusals with their codes, and messages that must be accepted."""

import base64
import json
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

from destination.certification.examination import WITH_STORES, CheckRequest, Examination
from destination.certification.findings import (
    AUTHORIZATION,
    BODY,
    DELETION,
    FAQ,
    HEADERS,
    SPEC,
    STATUS,
    CheckResult,
    NotCheckable,
    failed,
    passed,
    warned,
)
from destination.certification.points import Point
from destination.certification.wire import WireExchange, due
from destination.segment.contract import CALL_TYPES, DELETE, JsonObject
from destination.segment.spelling import SPELLINGS, spelled
from handler.keys import new_key

Make = Callable[[Examination], CheckRequest]
"""Creates a request that must be refused; raises `NotCheckable`."""

LARGE_BYTES = (40 * 1024, 512 * 1024)
"""Segment limits an incoming call to 32 KB before it adds fields; reverse-ETL records reach 512 KiB."""
LAMBDA_ERROR = {"errorMessage", "errorType"}
"""The body of a failed function, if a gateway passes it on like an answer."""
TOO_LARGE_BYTES = 1024 * 1024
"""docs/reference/answers.md: a longer body is refused."""
MANY_PROPERTIES = 9_900
"""Segment accepts up to 10,000."""


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A request that must be refused with a code of the contract, and with that code's status."""

    id: str
    title: str
    source: str
    code: str
    make: Make

    @property
    def expected(self) -> str:
        """The expected status and code."""
        return due(self.code)

    def check(self, examination: Examination) -> CheckResult:
        """Judge the answer."""
        exchange = refused(examination, self.id)
        if exchange.came != self.expected:
            return failed(f"answered {exchange.came}; expected: {self.expected}", exchange)
        if not exchange.message:
            return failed(f"answered {exchange.came} without a `message` for the customer", exchange)
        return passed(f"{exchange.came}: {exchange.message}", exchange)


def _authorized(authorization: str | None) -> Make:
    """Return a valid message with other credentials; `{…}` are marks in them."""

    def make(examination: Examination) -> CheckRequest:
        headers = examination.headers()
        del headers["Authorization"]
        if authorization is not None:
            headers["Authorization"] = authorization.format_map(examination.marks)
        return CheckRequest(examination.personal(), headers)

    return make


def _unknown_key(examination: Examination) -> CheckRequest:
    key = new_key()
    examination.wire.keep_secret(key)
    return CheckRequest(examination.personal(), examination.headers(key))


def _by_key(name: str) -> Make:
    """Return a valid message with one of the temporary keys."""

    def make(examination: Examination) -> CheckRequest:
        key = getattr(examination.keys, name)
        if key is None:
            raise NotCheckable(f"no {name} key is known: {WITH_STORES}")
        return CheckRequest(examination.personal(), examination.headers(key))

    return make


def _out_of_scope(examination: Examination) -> CheckRequest:
    key = examination.keys.scoped
    if key is None or examination.store_access is None:
        raise NotCheckable(f"no scoped key is known: {WITH_STORES}")
    others = [
        name for name in CALL_TYPES if name in examination.store_access.call_types and name != examination.carrier
    ]
    if not others:
        raise NotCheckable("only one call type is supported here, which the scoped key may send")
    return CheckRequest(examination.personal(others[0]), examination.headers(key))


def _body(content: Callable[[Examination], JsonObject | bytes]) -> Make:
    """Return a request with this body and a valid key."""

    def make(examination: Examination) -> CheckRequest:
        examination.need_key()
        return CheckRequest(content(examination))

    return make


def _not_utf8(examination: Examination) -> bytes:
    examination.need_gateway("does not pass bodies on that are not UTF-8")
    return json.dumps(examination.personal()).encode().replace(b"{", b'{"\xff": 1, ', 1)


def _without(names: Iterable[str]) -> Callable[[Examination], JsonObject]:
    def make(examination: Examination) -> JsonObject:
        return {name: value for name, value in examination.personal().items() if name not in names}

    return make


def _settings(header: str) -> Make:
    """Return a valid message with other settings; `{…}` are marks in them."""

    def make(examination: Examination) -> CheckRequest:
        examination.need_key()
        settings = {"X-Segment-Settings": header.format_map(examination.marks)}
        return CheckRequest(examination.personal(), examination.headers() | settings)

    return make


def _large(examination: Examination, size: int, **fields: Any) -> JsonObject:  # noqa: ANN401 -- any JSON value
    return examination.message(**_added(examination, {"description": "certify " * (size // 8)}), **fields)


def _added(examination: Examination, holds: JsonObject) -> JsonObject:
    """Return the carrier's field that belongs to the customer, with additional content."""
    own = examination.message().get(examination.own)
    return {examination.own: {**(own if isinstance(own, dict) else {}), **holds}}


def _unknown_type(examination: Examination) -> JsonObject:
    return examination.personal(type=f"sing {examination.marks['a name']}")


REFUSED = (
    Refused(
        id="auth.missing",
        title="No credentials are refused",
        source=STATUS,
        code="missing_credentials",
        make=_authorized(None),
    ),
    Refused(
        id="auth.empty",
        title="An empty key is refused",
        source=STATUS,
        code="missing_credentials",
        make=_authorized("Basic " + base64.b64encode(b":").decode()),
    ),
    Refused(
        id="auth.not-basic",
        title="Another scheme than Basic is refused",
        source=AUTHORIZATION,
        code="not_basic",
        make=_authorized("Bearer {credentials}"),
    ),
    Refused(
        id="auth.not-base64",
        title="Credentials that are not base64 are refused",
        source=AUTHORIZATION,
        code="not_base64",
        make=_authorized("Basic {credentials}!"),
    ),
    Refused(
        id="auth.no-colon",
        title="Credentials without a colon are refused",
        source=AUTHORIZATION,
        code="no_colon",
        make=_authorized("Basic {credentials in base64}"),
    ),
    Refused(
        id="auth.unknown",
        title="An unknown key is refused",
        source=STATUS,
        code="unknown_key",
        make=_unknown_key,
    ),
    Refused(
        id="auth.expired",
        title="An expired key is refused",
        source=STATUS,
        code="expired_key",
        make=_by_key("expired"),
    ),
    Refused(
        id="auth.revoked",
        title="A revoked key is refused",
        source=STATUS,
        code="revoked_key",
        make=_by_key("revoked"),
    ),
    Refused(
        id="auth.suspended",
        title="A suspended key is refused",
        source=STATUS,
        code="suspended_key",
        make=_by_key("suspended"),
    ),
    Refused(
        id="auth.scope",
        title="A key may send only the call types of its scope",
        source=STATUS,
        code="call_type_not_allowed",
        make=_out_of_scope,
    ),
    Refused(
        id="body.empty",
        title="An empty body is refused",
        source=STATUS,
        code="invalid_json",
        make=_body(lambda _: b""),
    ),
    Refused(
        id="body.not-json",
        title="A body that is not JSON is refused",
        source=STATUS,
        code="invalid_json",
        make=_body(lambda examination: json.dumps(examination.personal()).encode()[:-1]),
    ),
    Refused(
        id="body.not-utf8",
        title="A body that is not UTF-8 is refused",
        source=f"inferred: {STATUS}",
        code="invalid_encoding",
        make=_body(_not_utf8),
    ),
    Refused(
        id="body.array",
        title="An array is refused",
        source=f"inferred: {BODY}",
        code="not_an_object",
        make=_body(lambda examination: json.dumps([examination.personal()]).encode()),
    ),
    Refused(
        id="body.too-large",
        title="A body that is too large is refused",
        source=f"inferred: {STATUS}",
        code="message_too_large",
        make=_body(lambda examination: _large(examination, TOO_LARGE_BYTES)),
    ),
    Refused(
        id="message.no-type",
        title="A message without a type is refused",
        source=STATUS,
        code="missing_type",
        make=_body(_without(["type"])),
    ),
    Refused(
        id="message.unknown-type",
        title="An unknown call type is answered 501",
        source=STATUS,
        code="unsupported_call_type",
        make=_body(_unknown_type),
    ),
    Refused(
        id="message.nobody",
        title="A message without userId and anonymousId is refused",
        source=SPEC,
        code="invalid_message",
        make=_body(_without(["userId", "anonymousId"])),
    ),
    Refused(
        id="message.schema",
        title="A message that its schema refuses is refused",
        source=STATUS,
        code="invalid_message",
        make=_body(Examination.broken),
    ),
    Refused(
        id="settings.not-base64",
        title="Settings that are not base64 are refused",
        source=HEADERS,
        code="invalid_settings",
        make=_settings("{settings}!"),
    ),
    Refused(
        id="settings.not-json",
        title="Settings that are not JSON are refused",
        source=HEADERS,
        code="invalid_settings",
        make=_settings("{settings in base64}"),
    ),
)
REMEDY_REFUSED = (
    "docs/reference/answers.md lists the answers. If something is in front of the function (a proxy, a firewall, "
    "another service at this URL), it must pass requests and answers unchanged; otherwise deploy this checkout."
)


def _nearly(examination: Examination) -> CheckResult:
    """Send keys that differ little from the valid one: it must be compared as a whole, with its case."""
    good, expected = examination.keys.good, due("unknown_key")
    keys = {good.swapcase(), good[:-1] + ("y" if good.endswith("x") else "x")} - {good}
    for key in keys:
        examination.wire.keep_secret(key)
    exchanges = examination.post_all(CheckRequest(examination.personal(), examination.headers(key)) for key in keys)
    bad = [exchange for exchange in exchanges if exchange.came != expected]
    if bad:
        return failed(f"answered {bad[0].came}; expected: {expected}", *bad)
    return passed(f"answered {expected}", *exchanges)


NEARLY = Point(
    id="auth.nearly",
    title="A key that differs in one character or in case is refused",
    source=STATUS,
    remedy="Compare whole keys by their hash: don't ignore case, and don't compare only the beginning.",
    check=_nearly,
)


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """Requests that must be accepted."""

    id: str
    title: str
    source: str
    remedy: str
    sendings: Callable[[Examination], Iterable[CheckRequest]]

    def check(self, examination: Examination) -> CheckResult:
        """Judge the answers."""
        refusals = []
        sendings = []
        for sending in self.sendings(examination):
            assert isinstance(sending.content, dict)  # noqa: S101 -- for mypy: these are messages
            if refusal := examination.samples.refusal(sending.content):
                refusals.append(refusal)
            else:
                sendings.append(sending)
        exchanges = examination.post_all_valid(sendings)
        bad = [exchange for exchange in exchanges if not exchange.is_accepted]
        if bad:
            answers = ", ".join(sorted({_answer_text(exchange) for exchange in bad}))
            return failed(f"{len(bad)} of {len(exchanges)} were not accepted: {answers}", *bad)
        if refusals:
            raise NotCheckable(
                f"{len(exchanges)} were accepted, and {len(refusals)} not sent, because the schemas of this checkout "
                f"refuse them: {refusals[0]}"
            )
        return passed(f"{len(exchanges)} of {len(exchanges)} accepted", *exchanges)


def _answer_text(exchange: WireExchange) -> str:
    return f"{exchange.came} ({exchange.message})" if exchange.message else exchange.came


def _keys_with_white_space(examination: Examination) -> Iterator[CheckRequest]:
    for key in (f" {examination.keys.good}", f"{examination.keys.good} \t", f"{examination.keys.good}\n"):
        examination.wire.keep_secret(key)
        yield CheckRequest(examination.message(), examination.headers(key))


def _password(examination: Examination) -> Iterator[CheckRequest]:
    credentials = base64.b64encode(f"{examination.keys.good}:a password".encode()).decode()
    yield CheckRequest(examination.message(), examination.headers() | {"Authorization": f"Basic {credentials}"})


def _schemes(examination: Examination) -> Iterator[CheckRequest]:
    token = examination.headers()["Authorization"].removeprefix("Basic ")
    for scheme in ("basic", "BASIC"):
        yield CheckRequest(examination.message(), examination.headers() | {"Authorization": f"{scheme} {token}"})


CONTENT_TYPES = (
    "application/json; charset=utf-8",
    "application/vnd.segment+json; charset=utf-8",
    "application/vnd.x+json",
)


def _content_types(examination: Examination) -> Iterator[CheckRequest]:
    for content_type in CONTENT_TYPES:
        yield CheckRequest(examination.message(), examination.headers() | {"Content-Type": content_type})


def _with_settings(examination: Examination) -> Iterator[CheckRequest]:
    settings = {**examination.samples.settings, "customSettingOne": "custom setting value"}
    header = base64.b64encode(json.dumps(settings).encode()).decode()
    yield CheckRequest(examination.message(), examination.headers() | {"X-Segment-Settings": header})


def _spellings(examination: Examination) -> Iterator[CheckRequest]:
    for spell in SPELLINGS.values():
        message = examination.message()
        yield CheckRequest(spelled(deepcopy(message), spell), plain=message)


def _odd_shapes(examination: Examination) -> Iterator[CheckRequest]:
    shapes: tuple[Any, ...] = (None, {}, [], True, {"All": False, "certify": True, "Other": {"id": 1}})
    for integrations in shapes:
        yield CheckRequest(examination.message(integrations=integrations))
    for version in (2, 1, "1.1"):
        fields: JsonObject = {"version": version, "projectId": "certify", "channel": "server", "_metadata": {"a": []}}
        yield CheckRequest(examination.message(**fields))
    yield CheckRequest({**examination.message(), "a field of tomorrow": {"holds": ["anything", None, 1.5]}})


def _times(examination: Examination) -> Iterator[CheckRequest]:
    for time in ("1999-12-31T23:59:59.999Z", "2099-01-01T00:00:00Z", "2020-05-09T23:54:49+05:30"):
        yield CheckRequest(examination.message(timestamp=time, originalTimestamp=time, sentAt=time, receivedAt=time))
    yield CheckRequest(examination.message(sentAt=None, receivedAt=None))


def _integer_ids(examination: Examination) -> Iterator[CheckRequest]:
    number = int.from_bytes(examination.name.encode()[-6:])
    yield CheckRequest(examination.message(userId=number, anonymousId=number + 1))


def _large_messages(examination: Examination) -> Iterator[CheckRequest]:
    for size in LARGE_BYTES:
        yield CheckRequest(_large(examination, size))
    many = {f"property {number}": number for number in range(MANY_PROPERTIES)}
    yield CheckRequest(examination.message(**_added(examination, many)))


def _aliases(examination: Examination) -> Iterator[CheckRequest]:
    if not examination.call("alias").is_accepted:
        raise NotCheckable(f"alias calls are not accepted ({examination.call('alias').came})")
    yield CheckRequest(examination.message("alias"))
    message = examination.message("alias")
    old_names = {"previousId": "from", "userId": "to"}
    yield CheckRequest({old_names.get(name, name): value for name, value in message.items()}, plain=message)
    message = examination.message("alias")
    yield CheckRequest(spelled(deepcopy(message), SPELLINGS["User ID"]), plain=message)


def _odd_deletes(examination: Examination) -> Iterator[CheckRequest]:
    if not examination.call(DELETE).is_accepted:
        raise NotCheckable(f"delete calls are not accepted ({examination.call(DELETE).came})")
    usual = examination.message(DELETE)
    yield CheckRequest({**usual, "context": None, "integrations": None})
    usual = examination.message(DELETE)
    yield CheckRequest({**usual, "originalTimestamp": "2020-05-09 23:54:49.2 +0000 UTC m=+70366.29"})
    usual = examination.message(DELETE)
    message_id = f"delete-reg-{examination.name}::job-0-certify"
    yield CheckRequest({**usual, "messageId": message_id, "context": [], "integrations": []})
    usual = examination.message(DELETE)
    yield CheckRequest({name: usual[name] for name in ("type", "userId", "timestamp")})


ACCEPTED = (
    Accepted(
        id="auth.white-space",
        title="White space around a key is ignored",
        source=f"inferred: {AUTHORIZATION}",
        remedy="Customers paste keys: trim the user name of Basic credentials.",
        sendings=_keys_with_white_space,
    ),
    Accepted(
        id="auth.password",
        title="A password next to the key is ignored",
        source=AUTHORIZATION,
        remedy="Ignore the password of Basic credentials.",
        sendings=_password,
    ),
    Accepted(
        id="auth.scheme",
        title="The name of the scheme may be in any case",
        source="RFC 9110, Authentication Scheme",
        remedy="Compare the scheme without regard to case.",
        sendings=_schemes,
    ),
    Accepted(
        id="request.content-type",
        title="JSON with any Content-Type is accepted",
        source=HEADERS,
        remedy="Don't ask for a Content-Type: read the body as JSON.",
        sendings=_content_types,
    ),
    Accepted(
        id="settings.accepted",
        title="Settings of the customer are accepted",
        source=HEADERS,
        remedy="Read X-Segment-Settings as base64 of a JSON object; schemas/settings.json must allow further fields.",
        sendings=_with_settings,
    ),
    Accepted(
        id="message.casing",
        title="Fields may be spelled in any casing",
        source=BODY,
        remedy="Compare the spec's fields by their letters only.",
        sendings=_spellings,
    ),
    Accepted(
        id="message.shapes",
        title="Unusual but legal messages are accepted",
        source=SPEC,
        remedy="Allow unknown fields at the top, and integrations that are null, boolean or empty.",
        sendings=_odd_shapes,
    ),
    Accepted(
        id="message.times",
        title="Messages of any time are accepted",
        source=FAQ,
        remedy="Never refuse by age: retries, offline phones and replays bring old messages, wrong clocks future ones.",
        sendings=_times,
    ),
    Accepted(
        id="message.integer-id",
        title="Ids that are integers are accepted",
        source=f"inferred: {SPEC}",
        remedy="Convert integers to decimal strings.",
        sendings=_integer_ids,
    ),
    Accepted(
        id="message.large",
        title="Large messages are accepted",
        source="Segment Spec, limits; reverse ETL",
        remedy="Accept 512 KiB and 10,000 properties; a limit of 32 KB would refuse legal messages.",
        sendings=_large_messages,
    ),
    Accepted(
        id="message.alias",
        title="All forms of alias calls are accepted",
        source="Segment Spec, Alias",
        remedy="Accept previousId and userId, from and to, and any casing.",
        sendings=_aliases,
    ),
)


def _call(call_type: str, examination: Examination) -> CheckResult:
    """Judge a call type: it is accepted, or it is refused as not supported."""
    exchange = examination.call(call_type)
    is_off = examination.store_access is not None and call_type not in examination.store_access.call_types
    unsupported = due("unsupported_call_type")
    if exchange.is_accepted:
        fault = "although SupportedCallTypes does not include it" if is_off else None
        fault = fault or (_odd_success(exchange) if examination.store_access is None else None)
        answered = f"answered {exchange.status}"
        return failed(f"{answered}, {fault}", exchange) if fault else passed(answered, exchange)
    if exchange.came == unsupported and exchange.message and (is_off or examination.store_access is None):
        says = f"not supported here, and answered {exchange.status}: {exchange.message}"
        if call_type == DELETE:
            return warned(f"{says}. Segment requires partners to erase users", exchange)
        return passed(says, exchange)
    if exchange.came == due("invalid_message"):
        return failed(
            f"the endpoint's schema refuses the message of events/{call_type}.json: {exchange.message}", exchange
        )
    expected = unsupported if is_off else "200 or 202"
    return failed(f"answered {_answer_text(exchange)}; expected: {expected}", exchange)


def _odd_success(exchange: WireExchange) -> str | None:
    """Return the reason to doubt a success if no store can confirm it."""
    if exchange.answer.keys() & LAMBDA_ERROR:
        return "and its body is an error of AWS Lambda"
    is_object = exchange.answer or not exchange.reply or exchange.reply.body.strip() in (b"", b"{}")
    return None if is_object else "and its body is not a JSON object"


def _call_point(call_type: str) -> Point:
    return Point(
        id=f"calls.{call_type}",
        title=f"{call_type.capitalize()} calls are accepted, or answered 501",
        source=DELETION if call_type == DELETE else STATUS,
        remedy=(
            "With `maintenance`, wait until it is over. If a schema refuses the sample, deploy this checkout, or "
            f"edit events/{call_type}.json so that your schema accepts it."
        ),
        check=partial(_call, call_type),
    )


def _accepted_point(entry: Accepted) -> Point:
    return Point(id=entry.id, title=entry.title, source=entry.source, remedy=entry.remedy, check=entry.check)


REFUSALS = {entry.id: entry for entry in REFUSED}


def send_refusals(examination: Examination, ids: Iterable[str], number: int = 0) -> None:
    """Send the requests of these points concurrently, once in a run for each number; leave out unavailable ones."""
    sendings: dict[str, CheckRequest] = {}
    for name in ids:
        if (name, number) not in examination.refusals:
            with suppress(NotCheckable):
                sendings[name] = REFUSALS[name].make(examination)
    exchanges = examination.post_all(sendings.values())
    examination.refusals |= {(name, number): one for name, one in zip(sendings, exchanges, strict=True)}


def refused(examination: Examination, name: str) -> WireExchange:
    """Return the answer to the request of a point, which is sent once in a run; raises `NotCheckable`."""
    if (name, 0) not in examination.refusals:
        [examination.refusals[name, 0]] = examination.post_all([REFUSALS[name].make(examination)])
    return examination.refusals[name, 0]


def begin(examination: Examination, wanted: Collection[str]) -> None:
    """Send the requests of the selected points concurrently."""
    send_refusals(examination, [name for name in REFUSALS if name in wanted])


POINTS = (
    *(_call_point(call_type) for call_type in CALL_TYPES if call_type != DELETE),
    *(
        Point(id=entry.id, title=entry.title, source=entry.source, remedy=REMEDY_REFUSED, check=entry.check)
        for entry in REFUSED
    ),
    NEARLY,
    *map(_accepted_point, ACCEPTED),
)
DELETES = (
    _call_point(DELETE),
    _accepted_point(
        Accepted(
            id="delete.shapes",
            title="All forms of delete calls are accepted",
            source=DELETION,
            remedy="Accept deletes with a null context, a time in Go's format, and no messageId.",
            sendings=_odd_deletes,
        )
    ),
)
"""They erase users. If the schemas allow only one user id, that is the user of all other messages too."""
