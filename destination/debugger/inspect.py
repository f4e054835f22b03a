"""Show all details of one request: its content, how it was processed, its answer, and where it is now."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from destination.debugger.layout import Layout, lay_out_value
from destination.debugger.marks import (
    INHERITED,
    compare,
    entry,
    entry_ranges,
    left_out_sentences,
    mark_violations,
    mask_write_keys,
    old_names_in,
)
from destination.debugger.outcomes import MessageOutcome, outcomes_of
from destination.debugger.rendering import json_layout, render_content, render_headers
from destination.debugger.rows import DUPLICATE, FAILED, REFUSED, STORED, Row, outcome_of
from destination.deployment.event_table import to_json, value_text
from destination.deployment.main_thread import in_main_thread
from destination.deployment.target import Target
from destination.local.exchange import Exchange
from destination.watching.history import describe_failures
from destination.watching.lines import LOGGED_ID_CHARS, AccessLine, ConsumerFailure, FunctionLine
from destination.watching.retries import describe_retry
from destination.watching.search import SearchResult, describe
from handler.canonicalise import Message
from handler.errors import STORE_ERRORS, InvalidMessage, InvalidSettings, Violation
from handler.judge import Judge
from handler.record import Record, subject_of
from handler.routes import SEGMENT, BatchRoute


@dataclass(frozen=True, kw_only=True)
class Inspector:
    """Inspects the requests of a local server; `judge` has the current schemas.

    `consumer_failures` returns the consumer's failures for a customer and a message id.
    """

    target: Target
    dynamodb: Any
    judge: Judge
    consumer_failures: Callable[[str | None, str], Sequence[ConsumerFailure]]

    def inspect(self, exchange: Exchange, index: int | None = None) -> dict[str, Any]:
        """Return the page's details of a request, and of one of its messages, by default the first one that failed."""
        reading = exchange.read()
        outcomes = outcomes_of(exchange, reading.messages)
        if index is None:
            index = next((n for n, outcome in enumerate(outcomes) if outcome.outcome not in (STORED, DUPLICATE)), 0)
        body = json_layout(reading.text)
        facts: dict[str, Any] = {
            "row": Row.of_exchange(exchange).to_json(),
            "messages": [
                {
                    "index": number,
                    "call_type": _text(message.type),
                    "message_id": _text(message.body.get("message_id")),
                    **vars(outcome),
                }
                for number, (message, outcome) in enumerate(zip(reading.messages, outcomes, strict=True))
            ],
            "message": None,
            "subject": {},
            "canonical": None,
            "left_out": [],
            "violations": [],
            "answer": {
                "status": exchange.status,
                "headers": [*exchange.answer_headers],
                **render_content(exchange.answer),
            },
            **steps_of(exchange.lines),
            "stored": None,
            "line": None,
            "now": [*_remarks(exchange)],
        }
        if index < len(reading.messages):
            message = reading.messages[index]
            violations = self._violations(exchange, message, outcomes[index])
            facts |= {"message": index, "violations": [vars(violation) for violation in violations]}
            facts["subject"] = {
                name: subject_id
                for name in ("user_id", "anonymous_id")
                if isinstance(subject_id := message.body.get(name), str)
            }
            if message.body and body is not None:
                marked = violations if outcomes[index].code == InvalidMessage.code else ()
                body, canonical, left_out = _mark(body, exchange, message, index, marked)
                facts |= {"canonical": mask_write_keys(canonical).to_json(), "left_out": left_out}
            facts |= self._location(exchange, message, outcomes[index])
        elif exchange.lines:
            facts["now"].append(describe_retry(FunctionLine.from_json(exchange.lines[0], ""), None))
        facts["request"] = {
            "method": exchange.method,
            "path": exchange.path,
            "headers": render_headers(exchange.headers),
            "bytes": exchange.size,
            **render_content(reading.text, body),
        }
        return facts

    def _violations(self, exchange: Exchange, message: Message, outcome: MessageOutcome) -> Sequence[Violation]:
        """Return the violations of a message: from the answer to a single message, or by judging one of many again."""
        if outcome.code not in (InvalidMessage.code, InvalidSettings.code):
            return ()
        try:
            told = json.loads(exchange.answer).get("violations")
        except (ValueError, AttributeError):
            told = None
        if told:
            return [Violation(**violation) for violation in told]
        route = exchange.route or SEGMENT
        [refusal] = in_main_thread(lambda: self.judge.refusals([message], exchange.settings_header, route=route))
        return () if refusal is None else refusal.violations

    def _location(self, exchange: Exchange, message: Message, outcome: MessageOutcome) -> dict[str, Any]:
        """Return the stored item of a message, and sentences about where it is."""
        matching = (line for line in exchange.lines if outcome_of(line["outcome"]) == outcome.outcome)
        line = next(matching, None) or next(iter(exchange.late), None)
        if line is None:
            return {}
        read = FunctionLine.from_json(line, "")
        now = [*_remarks(exchange), describe_retry(read, _answer_of_api(exchange))]
        if read.outcome == DUPLICATE:
            now.append("It was stored already: nothing was written this time.")
        if read.outcome == REFUSED or read.customer_id is None:
            return {"now": now}
        items: Sequence[Mapping[str, Any]] | None = None
        fault = None
        if self.target.stores.sink.is_queryable:
            try:
                items = self._items(read.customer_id, message)
            except STORE_ERRORS as error:
                fault = f"Its current place can't be read: {error}"
        if fault is not None:
            now.append(fault)
        elif read.outcome != FAILED:
            now += describe(SearchResult(items=items, rejects=()), [read], self.target, "this request")
        elif items:
            now.append("It is stored now: another try has written it, or this one did before it failed.")
        message_id = str(message.body.get("message_id"))[:LOGGED_ID_CHARS]
        now += describe_failures(self.consumer_failures(read.customer_id, message_id))
        stored = mask_write_keys(lay_out_value(to_json(items[0]))).to_json() if items else None
        return {"stored": stored, "now": now}

    def _items(self, customer_id: str, message: Message) -> Sequence[Mapping[str, Any]]:
        if subject_of(customer_id, message.body) is None or not isinstance(message.body.get("message_id"), str):
            return ()  # it failed before its schema could refuse it
        record = Record(customer_id=customer_id, message=message, settings={}, stored_at=0)
        key = {"subject": {"S": record.subject}, "position": {"S": record.position}}
        answer = self.dynamodb.get_item(TableName=self.target.stores.event_table, Key=key, ConsistentRead=True)
        return [answer["Item"]] if "Item" in answer else []


def _mark(
    body: Layout, exchange: Exchange, message: Message, index: int, violations: Collection[Violation]
) -> tuple[Layout, Layout, list[str]]:
    """Return the lines of a body and of its canonical message, both marked, and descriptions of the omitted parts."""
    old_names = old_names_in(message.body)
    is_batch = isinstance(exchange.route, BatchRoute)
    place = entry_ranges(body).get(index, range(0)) if is_batch else range(len(body.lines))
    received, canonical = compare(
        entry(body, place) if is_batch else body,
        lay_out_value(message.body),
        old_names,
        added=INHERITED if is_batch else "added",
    )
    left_out = left_out_sentences(received)
    received = mark_violations(received, violations, old_names)
    if is_batch:
        lines = [*body.lines]
        for number, line in zip(place, received.lines, strict=True):
            lines[number] = replace(lines[number], marks=line.marks)
        received = replace(body, lines=lines)
    return received, mark_violations(canonical, violations, old_names), left_out


def _text(value: object) -> str | None:
    """Return any value as text."""
    return None if value is None else value_text(value)


def steps_of(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the milliseconds of each step and of all steps."""
    milliseconds = dict(lines[-1]["milliseconds"]) if lines else {}
    total = milliseconds.pop("total", None)
    return {"steps": [*milliseconds.items()], "total": total}


def _answer_of_api(exchange: Exchange) -> AccessLine | None:
    """Return the answer of the API itself, None if it passed on the function's answer."""
    if exchange.error is None:
        return None
    return AccessLine(
        time=exchange.time,
        request_id=exchange.id,
        route=f"{exchange.method} {exchange.path}",
        status=exchange.status,
        milliseconds=exchange.milliseconds,
        error=exchange.error,
        is_by_function=False,
        raw="",
    )


def _remarks(exchange: Exchange) -> Sequence[str]:
    if exchange.error is None:
        return ()
    late = [f"The function continued, and ended with: {line['outcome']}." for line in exchange.late[:1]]
    ways = [f"Messages go to POST {SEGMENT.path}, those of libraries to routes below /v1/."]
    return [
        f"API Gateway answered {exchange.status} by itself: {exchange.error}.",
        *late,
        *(ways if exchange.route is None else ()),
    ]
