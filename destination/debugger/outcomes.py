"""Determine the outcome of each message of a request."""

import json
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from destination.debugger.rows import DUPLICATE, REFUSED, Row, outcome_of
from destination.local.exchange import Exchange
from destination.watching.lines import LOGGED_ID_CHARS
from handler.canonicalise import Message


@dataclass(frozen=True, kw_only=True)
class MessageOutcome:
    """The outcome of one message."""

    outcome: str
    code: str | None
    text: str | None


def outcomes_of(exchange: Exchange, messages: Sequence[Message]) -> list[MessageOutcome]:
    """Return the outcome of each message: the answer lists the refused ones, and log lines list the others by id."""
    refused = {
        one["index"]: MessageOutcome(outcome=REFUSED, code=one["code"], text=one["message"])
        for one in _rejected(exchange)
    }
    said: defaultdict[str, deque[MessageOutcome]] = defaultdict(deque)
    others: deque[MessageOutcome] = deque()
    lines = [line for line in exchange.lines if not (refused and line["outcome"] == REFUSED)]
    # duplicates come after the message that they repeat
    for line in sorted(lines, key=lambda line: line["outcome"] == DUPLICATE):
        verdict = MessageOutcome(outcome=outcome_of(line["outcome"]), code=line["code"], text=line["text"])
        for message_id in line.get("message_ids", ()):
            said[message_id].append(verdict)
        if "message_ids" not in line:
            others.extend([verdict] * line.get("messages", 1))
    row = Row.of_exchange(exchange)
    unknown = MessageOutcome(outcome=row.outcome, code=row.code, text=row.text)

    def verdict_of(index: int, message: Message) -> MessageOutcome:
        if index in refused:
            return refused[index]
        message_id = message.body.get("message_id")
        named = said[message_id[:LOGGED_ID_CHARS] if isinstance(message_id, str) else ""]
        return named.popleft() if named else others.popleft() if others else unknown

    return [verdict_of(index, message) for index, message in enumerate(messages)]


def _rejected(exchange: Exchange) -> Sequence[Mapping[str, Any]]:
    """Return the refused messages in an answer to a library."""
    try:
        rejected: list[dict[str, Any]] = json.loads(exchange.answer)["rejected"]
    except (ValueError, LookupError, TypeError):
        return ()
    return rejected
