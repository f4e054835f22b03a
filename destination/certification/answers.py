"""The points about all answers together, their speed, and the routes besides the endpoint."""

import gzip
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import NamedTuple

from destination.certification.examination import CheckRequest, Examination
from destination.certification.findings import (
    AUTHORIZATION,
    FAQ,
    HEADERS,
    HTTP_API,
    OURS,
    RESPONSE,
    STATUS,
    CheckResult,
    NotCheckable,
    failed,
    passed,
    warned,
)
from destination.certification.points import Point
from destination.certification.requests import REFUSALS, send_refusals
from destination.certification.wire import Sent, WireExchange
from destination.segment.contract import CALL_TYPES, DELETE, DUPLICATE, QUEUED, STORED, JsonObject

WARM_MESSAGES = 50
MAX_LATE = 5
"""Limit for late answers; after that, further messages are not sent."""
MAX_CLOSED = 5
"""Limit for idle connections that were closed in a run; more look like dropped requests."""
AGAIN = ("auth.unknown", "body.array", "message.unknown-type", "message.nobody", "message.schema")
"""Refusals whose texts must not depend on the content of the request."""
JSON_TYPE = "application/json"
STATUS_WORDS = {200: (STORED, DUPLICATE), 202: (QUEUED, STORED, DUPLICATE)}
"""The words in the answer to an accepted message, by HTTP status: a `delete` is stored, and carried out later."""
CHALLENGES = ("www-authenticate", "x-amzn-remapped-www-authenticate")
"""API Gateway renames this header in the response of a function."""


def _refusals(examination: Examination) -> list[WireExchange]:
    """Send all messages that must be refused and were not sent yet; return all errors about messages so far."""
    examination.need_endpoint()
    with suppress(NotCheckable):
        send_refusals(examination, REFUSALS)
    exchanges = [one for one in examination.wire.exchanges if one.sent.method == "POST" and one.sent.target is None]
    if not any(exchange.is_error for exchange in exchanges):
        raise NotCheckable("no message was refused")
    return [exchange for exchange in exchanges if exchange.is_error]


def _json(examination: Examination) -> CheckResult:
    errors = _refusals(examination)
    bad = [exchange for exchange in errors if _fault_of(exchange)]
    if bad:
        return failed(f"{len(bad)} of {len(errors)} errors are not: {_fault_of(bad[0])}", *bad)
    return passed(f"{len(errors)} of {len(errors)} are")


def _fault_of(exchange: WireExchange) -> str | None:
    content_type = exchange.reply.headers.get("content-type", "") if exchange.reply else ""
    if content_type.partition(";")[0].strip().lower() != JSON_TYPE:
        return f"the Content-Type is {content_type or 'missing'}"
    return None if exchange.message else "there is no text in `message`"


def _private(examination: Examination) -> CheckResult:
    _refusals(examination)
    told_of = [one for one in examination.wire.exchanges if one.is_error or one.answer.get("rejected")]
    for exchange in told_of:
        told = _shown_by(exchange)
        for what, mark in examination.marks.items():
            if mark in told:
                return failed(f"an error repeats sent data: {what}", exchange)
    secrets = examination.wire.secrets
    for exchange in examination.wire.exchanges:
        shown = _shown_by(exchange)
        if any(secret in shown for secret in secrets):
            return failed("an answer contains an API key", exchange)
    return passed(f"none of {len(told_of)} errors repeats sent data")


def _shown_by(exchange: WireExchange) -> str:
    """Return the text of an answer, with JSON escapes decoded."""
    if exchange.reply is None:
        return ""
    body = exchange.reply.body.decode("utf-8", "replace")
    texts = json.dumps(exchange.answer, ensure_ascii=False) if exchange.answer else ""
    return "\n".join((*exchange.reply.headers.values(), body, texts))


def _few(examination: Examination) -> CheckResult:
    pairs = []
    with suppress(NotCheckable):
        for number in (0, 1):
            send_refusals(examination, AGAIN, number)
    for name in AGAIN:
        first, second = examination.refusals.get((name, 0)), examination.refusals.get((name, 1))
        if first and second and first.came == second.came and first.message and second.message:
            pairs.append((first, second))
    if not pairs:
        raise NotCheckable("no mistake was answered twice with the same code and a text")
    for first, second in pairs:
        if first.message != second.message:
            return failed("the same mistake got two texts, so Segment can't group them", first, second)
    return passed(f"{len(pairs)} mistakes were made twice with different values, and got the same texts")


def _successes(examination: Examination) -> CheckResult:
    """Judge the form of successes; their bodies may be empty."""
    examination.need_endpoint()
    accepted = [one for one in examination.wire.exchanges if one.is_accepted and one.sent.method == "POST"]
    if not accepted:
        raise NotCheckable("nothing was accepted")
    for exchange in accepted:
        if fault := _fault_of_success(exchange):
            return failed(f"a success has the wrong form: {fault}", exchange)
    return passed(f"{len(accepted)} of {len(accepted)} are")


def _fault_of_success(exchange: WireExchange) -> str | None:
    reply = exchange.reply
    if reply is None or not reply.body.strip():
        return None
    content_type = reply.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != JSON_TYPE:
        return f"the Content-Type is {content_type or 'missing'}"
    status = exchange.answer.get("status")
    if status is not None and status not in STATUS_WORDS[reply.status]:
        return f"the answer is {reply.status} and its status {status!r}"
    return None


def _retry_after(examination: Examination) -> CheckResult:
    """Judge the failures that the function answered itself; API Gateway's own failures have no code."""
    examination.need_endpoint()
    failures = [one for one in examination.wire.exchanges if one.status == 503 and "code" in one.answer]  # noqa: PLR2004
    if not failures:
        raise NotCheckable("no request failed: docs/explanation/reliability.md says how a store can be made to fail")
    bad = [one for one in failures if one.reply and not one.reply.headers.get("retry-after", "").isdecimal()]
    if bad:
        return failed(f"{len(bad)} of {len(failures)} failures (503) have none", *bad)
    return passed(f"{len(failures)} of {len(failures)} failures (503) have it", failures[0])


def _challenge(examination: Examination) -> CheckResult:
    unauthorized = [exchange for exchange in _refusals(examination) if exchange.status == 401]  # noqa: PLR2004
    if not unauthorized:
        raise NotCheckable("no answer was a 401")
    bad = [exchange for exchange in unauthorized if not _asks_for_basic(exchange)]
    if bad:
        return failed(f"{len(bad)} of {len(unauthorized)} have none", *bad)
    return passed(f"{len(unauthorized)} of {len(unauthorized)} have it", unauthorized[0])


def _asks_for_basic(exchange: WireExchange) -> bool:
    headers = exchange.reply.headers if exchange.reply else {}
    return any(headers.get(name, "").lower().startswith("basic") for name in CHALLENGES)


def _cold(examination: Examination) -> CheckResult:
    examination.need_endpoint()
    first = examination.wire.exchanges[0]
    if first.milliseconds > examination.wire.limit_seconds * 1000:
        return failed(f"the first answer took {first.milliseconds:,.0f} ms", first)
    raise NotCheckable(
        f"the first answer took {first.milliseconds:,.0f} ms; it is not visible from outside whether that was a cold "
        "start. "
        "`make bench` measures cold starts, and the route's time-out ends those that take too long"
    )


def _warm(examination: Examination) -> CheckResult:
    limit = examination.wire.limit_seconds * 1000
    exchanges: list[WireExchange] = []
    while len(exchanges) < WARM_MESSAGES and sum(one.milliseconds > limit for one in exchanges) < MAX_LATE:
        exchanges.append(examination.post_valid(examination.message()))
    times = sorted(exchange.milliseconds for exchange in exchanges)
    p50, p99 = (times[math.ceil(share * len(times)) - 1] for share in (0.5, 0.99))
    measured = f"{len(times)} messages: p50 {p50:,.0f} ms, p99 {p99:,.0f} ms"
    slowest = max(exchanges, key=lambda exchange: exchange.milliseconds)
    if p99 > limit:
        return failed(measured, slowest)
    bad = [exchange for exchange in exchanges if not exchange.is_accepted]
    if bad:
        return failed(f"{len(bad)} of {len(exchanges)} were not accepted: {bad[0].came}", *bad)
    return passed(measured, slowest)


def _in_time(examination: Examination) -> CheckResult:
    examination.need_endpoint()
    limit = examination.wire.limit_seconds * 1000
    exchanges = examination.wire.exchanges
    late = [exchange for exchange in exchanges if exchange.milliseconds > limit]
    slowest = max(exchanges, key=lambda exchange: exchange.milliseconds)
    late_failures = [exchange for exchange in late if exchange.is_failure and exchange.reply is not None]
    if len(late) > len(late_failures):
        return failed(f"{len(late)} of {len(exchanges)} took longer than {limit / 1000:g} s", slowest)
    if late_failures:
        return warned(
            f"{len(late_failures)} of {len(exchanges)} took longer than {limit / 1000:g} s: {_kinds(late_failures)}",
            *late_failures,
        )
    missing = [exchange for exchange in exchanges if exchange.reply is None]
    dropped = [exchange for exchange in missing if exchange.was_reused]
    again = f"; {len(dropped)} met a closed idle connection, and were sent again"
    says = f"the slowest of {len(exchanges)} took {slowest.milliseconds:,.0f} ms{again if dropped else ''}"
    return warned(says, *dropped) if len(dropped) > MAX_CLOSED else passed(says, slowest)


def _repeated(examination: Examination) -> CheckResult:
    """Judge how many requests failed at first. A request that failed each time is judged by the point that sent it."""
    examination.need_endpoint()
    exchanges = examination.wire.exchanges
    failures = [one for one in exchanges if one.is_failure and not (one.reply is None and one.was_reused)]
    if not failures:
        return passed(f"none of {len(exchanges)} requests had to be sent again")
    says = f"{len(failures)} of {len(exchanges)} failed, and were sent again as Segment does: {_kinds(failures)}"
    return (failed if len(failures) * 2 >= len(exchanges) else warned)(says, *failures)


def _kinds(exchanges: Sequence[WireExchange]) -> str:
    kinds = Counter(exchange.came for exchange in exchanges)
    return ", ".join(f"{came} ({count})" for came, count in kinds.most_common())


def _keep_alive(examination: Examination) -> CheckResult:
    exchanges = [examination.post_valid(examination.message()) for _ in range(3)]
    if any(exchange.reply and exchange.reply.is_reused for exchange in exchanges):
        return passed("several messages came over one connection")
    examination.need_gateway("keeps no connections")
    return warned("each answer closes the connection, so each message costs a new one", *exchanges)


def _methods(examination: Examination) -> CheckResult:
    exchanges = [examination.send(Sent(method=name, headers=examination.headers())) for name in ("HEAD", "GET", "PUT")]
    answers = ", ".join(f"{exchange.sent.method} {exchange.came}" for exchange in exchanges)
    bad = [exchange for exchange in exchanges if exchange.status is None or not 400 <= exchange.status < 500]  # noqa: PLR2004
    return failed(f"answered {answers}", *bad) if bad else passed(f"answered {answers}", *exchanges)


def _health(examination: Examination) -> CheckResult:
    exchange = examination.send(Sent(method="GET", target=examination.target("/health")))
    if exchange.is_no_route:
        raise NotCheckable(f"not offered here ({exchange.came})")
    if exchange.status != 200:  # noqa: PLR2004
        return failed(f"answered {exchange.came}", exchange)
    told = _shown_by(exchange)
    if secret := next((name for name in _secrets(examination) if re.search(name, told)), None):
        return failed(f"answered 200, but reveals too much ({secret})", exchange)
    return passed("answered 200, and reveals nothing else", exchange)


def _secrets(examination: Examination) -> Iterator[str]:
    """Yield patterns that must not occur in an answer for anybody."""
    yield from ("arn:aws", r"\bAKIA[0-9A-Z]{16}\b", "Traceback")
    yield from map(re.escape, examination.wire.secrets)
    if examination.store_access:
        stores = asdict(examination.store_access.target.stores)
        yield from (re.escape(value) for name, value in stores.items() if name.endswith(("_table", "_url")) and value)


class _Library(NamedTuple):
    """A request to a route of Segment's libraries, its messages that must be accepted, and the number of refusals."""

    path: str
    content: JsonObject | bytes
    messages: Sequence[JsonObject]
    headers: dict[str, str] | None = None
    rejected: int = 0


def _post_as_libraries(examination: Examination, requests: Sequence[_Library]) -> Iterator[tuple[WireExchange, bool]]:
    """Send to the routes of Segment's libraries. Yields each answer, and whether its counts are right.

    Raises `NotCheckable` if there are no such routes.
    """
    if examination.samples.settings:
        raise NotCheckable("libraries send no settings, but schemas/settings.json requires some")
    if not examination.first.is_accepted:
        raise NotCheckable(f"a valid {examination.carrier} call is not accepted ({examination.first.came})")
    if examination.carrier == DELETE:
        raise NotCheckable("only delete calls are supported here, which libraries don't send")
    exchanges = examination.post_all(
        CheckRequest(one.content, one.headers, target=examination.target(one.path)) for one in requests
    )
    for request, exchange in zip(requests, exchanges, strict=True):
        if exchange.is_no_route and not examination.has_library_routes:
            raise NotCheckable(f"not offered here ({request.path}: {exchange.came}); it is not on Segment's checklist")
        is_right = _counts(exchange, accepted=len(request.messages), rejected=request.rejected)
        for message in request.messages if is_right else ():
            examination.note_accepted(message)
        yield exchange, is_right


def _single_routes(examination: Examination) -> CheckResult:
    requests = []
    for call_type in CALL_TYPES:
        if call_type != DELETE and examination.call(call_type).is_accepted:
            message = examination.message(call_type)
            content = {name: value for name, value in message.items() if name != "type"}
            requests.append(_Library(f"/v1/{call_type}", content, [message]))
    answers = list(_post_as_libraries(examination, requests))
    bad = [(one.path, exchange) for one, (exchange, is_right) in zip(requests, answers, strict=True) if not is_right]
    if bad:
        paths = ", ".join(f"{path} {exchange.came}" for path, exchange in bad)
        return failed(f"{len(bad)} of {len(answers)} were not accepted: {paths}", *(exchange for _, exchange in bad))
    if not answers:
        raise NotCheckable("none of the libraries' call types is accepted")
    return passed(f"{len(answers)} of {len(answers)} accepted", *(exchange for exchange, _ in answers))


def _counts(exchange: WireExchange, *, accepted: int, rejected: int) -> bool:
    """Return whether the answer has the form that libraries need: some accept only a 200 as success."""
    refused = exchange.answer.get("rejected")
    counted = [exchange.answer.get(name) for name in ("accepted", "duplicates")]
    stored_before = range(accepted + 1 if exchange.failures else 1)  # a request that failed and was retried
    return (
        exchange.status == 200  # noqa: PLR2004
        and counted in [[accepted - duplicates, duplicates] for duplicates in stored_before]
        and isinstance(refused, list)
        and len(refused) == rejected
    )


def _batch(examination: Examination) -> CheckResult:
    messages = [examination.message() for _ in range(3)]
    batch = {"batch": messages, "sentAt": "2026-03-12T09:30:00.000Z"}
    [(exchange, is_right)] = _post_as_libraries(examination, [_Library("/v1/batch", batch, messages)])
    if not is_right:
        return failed(f"answered {exchange.came}; expected: 200 with 3 accepted", exchange)
    return passed("3 of 3 accepted", exchange)


def _bad_one(examination: Examination) -> CheckResult:
    good, bad = examination.message(), examination.message()
    del bad["type"]
    request = _Library("/v1/batch", {"batch": [bad, good]}, [good], rejected=1)
    [(exchange, is_right)] = _post_as_libraries(examination, [request])
    if not is_right:
        return failed(f"answered {exchange.came}; expected: 200 with 1 accepted and 1 rejected", exchange)
    [rejected] = exchange.answer["rejected"]
    if not isinstance(rejected, dict) or (rejected.get("index"), rejected.get("code")) != (0, "missing_type"):
        return failed("the answer does not say which message was rejected, and why", exchange)
    return passed("the valid message is accepted, and the invalid one has its index and code in the answer", exchange)


def _gzip(examination: Examination) -> CheckResult:
    examination.need_gateway("does not pass gzip bodies on")
    messages = [examination.message() for _ in range(3)]
    body = gzip.compress(json.dumps({"batch": messages}).encode())
    headers = {**examination.headers(), "Content-Encoding": "gzip"}
    [(exchange, is_right)] = _post_as_libraries(examination, [_Library("/v1/batch", body, messages, headers)])
    if not is_right:
        return failed(f"answered {exchange.came}; expected: 200 with 3 accepted", exchange)
    return passed("3 of 3 accepted", exchange)


def _write_key(examination: Examination) -> CheckResult:
    headers = examination.headers()
    del headers["Authorization"]
    message = examination.message()
    body = {"batch": [message], "writeKey": examination.keys.good}
    [(exchange, is_right)] = _post_as_libraries(examination, [_Library("/v1/batch", body, [message], headers)])
    if not is_right:
        return failed(f"answered {exchange.came}; expected: 200 with 1 accepted", exchange)
    return passed("accepted", exchange)


def _not_from_outside(reason: str) -> CheckResult:
    raise NotCheckable(reason)


REMEDY_SPEED = (
    "Give the function more memory (MemorySize), and compare its duration with the store's; "
    "docs/reference/configuration.md."
)
REMEDY_LIBRARIES = (
    "Deploy all routes of template.yaml, and let them lead to this function; docs/reference/libraries.md."
)
POINTS = (
    Point(
        id="request.keep-alive",
        title="Connections stay open",
        source=HEADERS,
        remedy="Keep connections open; Segment reuses them if it can.",
        check=_keep_alive,
    ),
    Point(
        id="request.methods",
        title="Other methods are refused",
        source=f"inferred: {STATUS}",
        remedy="Let only POST lead to the function; other methods are answered 404 or 405.",
        check=_methods,
    ),
    Point(
        id="health.answers",
        title="GET /health is 200 and reveals no secret",
        source=OURS,
        remedy="Its answer names the store that fails; docs/reference/answers.md.",
        check=_health,
    ),
    Point(
        id="libraries.single",
        title="Segment's libraries: single messages",
        source=HTTP_API,
        remedy=REMEDY_LIBRARIES,
        check=_single_routes,
    ),
    Point(
        id="libraries.batch",
        title="Segment's libraries: a batch",
        source=HTTP_API,
        remedy=REMEDY_LIBRARIES,
        check=_batch,
    ),
    Point(
        id="libraries.bad-one",
        title="Segment's libraries: an invalid message does not affect others",
        source=OURS,
        remedy=REMEDY_LIBRARIES,
        check=_bad_one,
    ),
    Point(
        id="libraries.gzip",
        title="Segment's libraries: gzip",
        source=HTTP_API,
        remedy="Configure proxies in front of the function to pass bodies unchanged, with Content-Encoding.",
        check=_gzip,
    ),
    Point(
        id="libraries.write-key",
        title="Segment's libraries: the key as writeKey",
        source=HTTP_API,
        remedy=REMEDY_LIBRARIES,
        check=_write_key,
    ),
    Point(
        id="answers.cold",
        title="A cold start answers in time",
        source="inferred: 5 seconds, as for webhooks and functions",
        remedy=REMEDY_SPEED,
        check=_cold,
    ),
    Point(
        id="answers.warm",
        title="Sequential messages are answered in time",
        source="inferred: 5 seconds, as for webhooks and functions",
        remedy=REMEDY_SPEED,
        check=_warm,
    ),
)
OVERALL = (
    Point(
        id="answers.in-time",
        title="No answer of the whole run was late",
        source="inferred: 5 seconds, as for webhooks and functions",
        remedy=REMEDY_SPEED,
        check=_in_time,
    ),
    Point(
        id="answers.repeated",
        title="No request had to be retried",
        source=FAQ,
        remedy=(
            "Segment retries failures for up to four hours, and less if half of all requests fail. `destination "
            "status` and the function's log show the reasons; docs/reference/alarms.md."
        ),
        check=_repeated,
    ),
    Point(
        id="answers.success",
        title="Every success is JSON, and says what happened to the message",
        source=RESPONSE,
        remedy="Answer as application/json: 200 stored or duplicate, 202 queued; docs/reference/answers.md.",
        check=_successes,
    ),
    Point(
        id="errors.retry-after",
        title="A failure says when to retry",
        source="RFC 9110, Retry-After; docs/reference/answers.md",
        remedy="Answer Retry-After, in seconds, with each 503.",
        check=_retry_after,
    ),
    Point(
        id="errors.json",
        title="Every error is JSON with a text for the customer",
        source=RESPONSE,
        remedy="Answer errors with Content-Type application/json and a `message`; Segment shows nothing else.",
        check=_json,
    ),
    Point(
        id="errors.private",
        title="No error contains personal data, and no answer contains a key",
        source=f"inferred: {RESPONSE}",
        remedy="Texts must name the field and the fix, and never quote sent data; see `errorMessage` in schemas/.",
        check=_private,
    ),
    Point(
        id="errors.few",
        title="The same mistake gets the same text",
        source=f"inferred: {RESPONSE} (summaries group them)",
        remedy="Leave ids, values and times out of the texts.",
        check=_few,
    ),
    Point(
        id="errors.challenge",
        title="A 401 asks for Basic credentials",
        source=f"inferred: {AUTHORIZATION}; RFC 9110",
        remedy="Answer WWW-Authenticate: Basic with each 401.",
        check=_challenge,
    ),
)
"""The points that judge all answers of a run."""
FAULTS = (
    Point(
        id="faults.store",
        title="A store failure is answered 503, never with a success or a 4xx",
        source=STATUS,
        remedy="docs/explanation/reliability.md",
        check=lambda _: _not_from_outside(
            "a store can't be made to fail from outside; docs/explanation/reliability.md says how each failure was "
            "tested, "
            "and `destination serve --faults 0.05` with `destination simulate` repeat that"
        ),
    ),
    Point(
        id="faults.bug",
        title="A bug is answered with a 500 without details",
        source=STATUS,
        remedy="docs/explanation/reliability.md",
        check=lambda _: _not_from_outside(
            "no request is known that makes the function fail; tests/test_app.py tests it"
        ),
    ),
    Point(
        id="faults.throttled",
        title="A request above the limit is answered 429, and Segment retries it",
        source=FAQ,
        remedy="docs/reference/configuration.md",
        check=lambda _: _not_from_outside(
            "reaching the API's limit would affect customers; the access log has each 429"
        ),
    ),
)
"""Points that can't be checked from outside. They are listed, so that nobody assumes a check."""
