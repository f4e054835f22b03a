"""Find a message: in the event table, among the rejects, in the queue, or nowhere any more."""

import itertools
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

import click

from consumer.erasure.table import ErasureTable, Receipt
from destination.deployment import demo
from destination.deployment.event_table import fetch_items
from destination.deployment.reject_table import KeptReject, StoredRejects, newest_first
from destination.deployment.target import Target
from destination.watching.lines import FunctionLine
from handler.errors import STORE_ERRORS
from handler.record import sha256, subject_key, utf8
from handler.spec import DELETE
from handler.timestamps import sortable

CLOCKS_APART = timedelta(seconds=10)
"""Tolerance between the time of a line and the time of its reject, which are read from the clock one after another."""

MAX_FOUND = 1000
"""The number of messages of one id that are shown: an id is unique only within a customer and a user."""

HAS_ID = "message_id = :message_id"

Item = Mapping[str, Any]
"""An item of the event table, as DynamoDB returns it."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """The message to find; `subject_id` is the id of a user or an anonymous visitor, if one is given."""

    message_id: str
    customer_id: str | None
    kind: Literal["user", "anonymous"]
    subject_id: str | None
    scan: bool


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The items of the event table, None if it was not searched, and the rejects, oldest first.

    `receipts` are those of erasures that finished after the message was accepted: of its user if `names_user`,
    otherwise of all users of its customer; None if they were not looked up. `fault` is the reason if the tables could
    not be read.
    """

    items: Sequence[Item] | None
    rejects: Sequence[KeptReject]
    receipts: Sequence[Receipt] | None = None
    names_user: bool = False
    fault: str | None = None

    @property
    def customers(self) -> set[str]:
        """The customers of the items and rejects."""
        return {item["customer_id"]["S"] for item in self.items or ()} | {one.customer_id for one in self.rejects}

    def of(self, customer_id: str) -> "SearchResult":
        """Return the result for one customer."""
        return SearchResult(
            items=None if self.items is None else [one for one in self.items if one["customer_id"]["S"] == customer_id],
            rejects=[reject for reject in self.rejects if reject.customer_id == customer_id],
            receipts=None
            if self.receipts is None
            else [one for one in self.receipts if one.customer_id == customer_id],
            names_user=self.names_user,
            fault=self.fault,
        )


def find(target: Target, search: Search, lines: Collection[FunctionLine]) -> SearchResult:
    """Find a message, with the help of its log lines."""
    items = _items(target, search, {line.customer_id for line in lines if line.customer_id is not None})
    return SearchResult(
        items=items,
        rejects=_rejects(target, search, lines),
        receipts=None if items is None or items else _receipts(target, search, lines),
        names_user=search.subject_id is not None,
    )


def _receipts(target: Target, search: Search, lines: Collection[FunctionLine]) -> Sequence[Receipt] | None:
    """Return the receipts that may explain why a message is gone; None if they can't be read."""
    table = ErasureTable(target.account.dynamodb(), target.stores.erasure_table)
    since: dict[str, str] = {}
    for line in lines:
        if line.customer_id is not None:
            time = sortable(line.time - CLOCKS_APART)
            since[line.customer_id] = min(time, since.get(line.customer_id, time))
    found: list[Receipt] = []
    try:
        for customer, time in since.items():
            named = search.subject_id and sha256(subject_key(customer, search.kind, search.subject_id))
            receipts = table.receipts(customer, user_hash=named) if named else table.receipts(customer)
            found += (one for one in receipts if one.finished_at >= time)
    except STORE_ERRORS:
        return None
    return found


def _rejects(target: Target, search: Search, lines: Collection[FunctionLine]) -> Sequence[KeptReject]:
    """Return the rejects of the days on which it was refused; on a local server of all days."""
    table = StoredRejects(target.account.dynamodb(), target.stores.rejects_table)
    if target.is_local:
        rejects: Iterable[KeptReject] = table.everything()
    else:
        days: defaultdict[str, set[date]] = defaultdict(set)
        for line in lines:
            if line.outcome == "refused" and line.customer_id is not None:
                days[line.customer_id] |= {(line.time - CLOCKS_APART).date(), line.time.date()}
        rejects = itertools.chain.from_iterable(table.of_customer(whose, sorted(when)) for whose, when in days.items())
    chosen = [
        reject
        for reject in rejects
        if reject.facts.get("message_id") == utf8(search.message_id)
        and search.customer_id in (None, reject.customer_id)
    ]
    return newest_first(chosen)[::-1]


def _items(target: Target, search: Search, customers: Collection[str]) -> Sequence[Item] | None:
    """Return the items with the message id, None if that needs a scan that the user did not ask for."""
    if not target.stores.sink.is_queryable:
        return None
    client = target.account.dynamodb()
    values = {":message_id": {"S": utf8(search.message_id)}}
    if search.subject_id is None:
        if not search.scan and not target.is_local:
            return None
        if target.arrivals is not None and not search.scan:
            keys = target.arrivals(search.customer_id, search.message_id, MAX_FOUND)
            if keys:
                return list(fetch_items(target, keys))
        pages = client.get_paginator("scan").paginate(
            TableName=target.stores.event_table,
            FilterExpression=HAS_ID,
            ExpressionAttributeValues=values,
            ConsistentRead=True,
        )
        items = [item for page in pages for item in page["Items"]]
        return [item for item in items if search.customer_id in (None, item["customer_id"]["S"])]
    known = {search.customer_id} if search.customer_id is not None else customers
    if not known and target.is_local:
        known = {demo.CUSTOMER}
    if not known:
        raise click.UsageError(
            "No line says which customer sent the message: name this user's customer with --customer"
        )
    subjects = [subject_key(customer, search.kind, search.subject_id) for customer in known]
    return [
        item
        for subject in subjects
        for page in client.get_paginator("query").paginate(
            TableName=target.stores.event_table,
            FilterExpression=HAS_ID,
            KeyConditionExpression="subject = :subject",
            ExpressionAttributeValues={**values, ":subject": {"S": subject}},
            ConsistentRead=True,
        )
        for item in page["Items"]
    ]


def describe(result: SearchResult, lines: Collection[FunctionLine], target: Target, words: str) -> Iterator[str]:
    """Yield sentences about where a message of one customer is, and about contradictions to its lines.

    `words` describe the period of the lines.
    """
    taken = [line for line in lines if line.outcome in ("accepted", "duplicate")]
    refused = [line for line in lines if line.outcome == "refused"]
    for item in result.items or ():
        key = f"{item['subject']['S']} at {item['position']['S']}"
        yield f"Stored at {_moment(item['stored_at']['S'])} UTC in the event table, as {key}."
        if item["type"]["S"] == DELETE:
            yield "The erasure that it requests has not been carried out yet: it would delete this message."
    if result.items and not taken:
        yield (
            f"No line of {words} says that it was accepted: it was stored earlier, or by `destination rejects "
            "retry`, or its function ended before it could write one."
        )
    if result.items is None and not target.stores.sink.is_queryable:
        if taken:
            yield f"Queued in {target.stores.event_store} until a consumer receives it. A queue can't be searched."
    elif result.items is None:
        yield (
            "The event table was not searched, because it has no index by message id: name its --user or "
            "its --anonymous id, or use --scan to read the whole table."
        )
    elif taken and not result.items:
        yield _why_not_stored(result, taken, target)
    for reject in result.rejects:
        yield (
            f"Among the rejects since {_moment(reject.rejected_at)} UTC as {reject.reject_id}: "
            "`destination rejects show` shows all of it, `destination rejects retry` stores it after the schema is "
            "corrected."
        )
    if refused and not result.rejects:
        was_kept = any(line.kept for line in refused)
        yield _why_not_kept(result, refused, target) if was_kept else "It is not among the rejects."


def is_missing(result: SearchResult, lines: Collection[FunctionLine]) -> bool:
    """Return whether a message of one customer should be in a table that was read, and may be lost."""
    taken = [line for line in lines if line.outcome in ("accepted", "duplicate")]
    if result.items is None or result.items or result.rejects:
        return False
    if taken:
        return not _is_explained(result, taken)
    if result.names_user and result.receipts:  # the erasure of its user deleted its reject
        return False
    return any(line.outcome == "refused" and line.kept for line in lines)


def _is_explained(result: SearchResult, taken: Collection[FunctionLine]) -> bool:
    """Return whether a receipt shows that an erasure deleted a message: its own request, or one for its user."""
    if all(line.call_type == DELETE for line in taken):
        return result.receipts is None or bool(result.receipts)
    return result.names_user and bool(result.receipts)


def _why_not_stored(result: SearchResult, taken: Collection[FunctionLine], target: Target) -> str:
    """Return why a message may be missing in the event table, by configuration and receipts."""
    is_delete = all(line.call_type == DELETE for line in taken)
    if _is_explained(result, taken):
        return (
            "It is not in the event table any more: the erasure that it requested was carried out, and "
            "`destination erasures list` shows the receipt."
            if is_delete
            else "It is not in the event table any more: its user was erased after it was accepted (`destination "
            "erasures list`)."
        )
    reasons = [*_erasures(result), *_expiry(taken, target.stores.event_retention_days, "EventRetentionDays")]
    if result.names_user:
        reasons.append("it belongs to another user than the given one")
    reasons.append("somebody deleted it")
    receipt = ", and there is no receipt of the erasure that it requested" if is_delete else ""
    return f"It was accepted and is not in the event table{receipt}: {', '.join(reasons)}, or it was lost."


def _why_not_kept(result: SearchResult, refused: Collection[FunctionLine], target: Target) -> str:
    """Return why a message may be missing among the rejects, by configuration and receipts."""
    if result.items:
        return "It is not among the rejects any more: it was retried, or stored by another delivery and purged."
    if result.names_user and result.receipts:
        return "It is not among the rejects any more: its user was erased since (`destination erasures list`)."
    expiry = _expiry(refused, target.stores.rejects_retention_days, "RejectsRetentionDays")
    reasons = [*_erasures(result), *expiry, "it was purged"]
    if result.items is None:
        reasons.insert(0, "it was retried")
    return f"It is not among the rejects any more: {', '.join(reasons)}, or it was lost."


def _erasures(result: SearchResult) -> Iterator[str]:
    """Yield that a user may have been erased, unless the receipts rule it out."""
    if result.receipts is None:
        yield "its user was erased (`destination erasures list`)"
    elif result.receipts and not result.names_user:
        count = len(result.receipts)
        which = "an erasure of this customer has" if count == 1 else f"{count:,} erasures of this customer have"
        yield f"its user was erased ({which} finished since: `destination erasures list`)"


def _expiry(lines: Collection[FunctionLine], days: str, parameter: str) -> Iterator[str]:
    """Yield that a message expired, if its retention has passed; a stack may not name the retention."""
    if not days:
        yield f"it expired by {parameter}"
    elif int(days) and max(line.time for line in lines) + timedelta(days=int(days)) <= datetime.now(UTC):
        yield f"it expired after {parameter}={days}"


def _moment(text: str) -> str:
    return text.replace("T", " ")[: len("2020-05-09 23:54:49.200")]
