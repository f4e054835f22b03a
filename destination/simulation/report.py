"""The report of `destination simulate`: the reconciliation, the answers over time, and their durations."""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from destination.segment.contract import RETRIED_BY_SEGMENT
from destination.simulation.contacts import Comparison
from destination.simulation.ledger import NO_CONNECTION, TIMED_OUT, Ledger, Tries
from destination.simulation.pieces import PIECES_FROM
from destination.simulation.play import Findings
from destination.simulation.reconcile import Reconciliation
from destination.simulation.rejects import RejectComparison
from destination.simulation.witness import ErasureResults

TIMELINE_COLUMNS = 36
BAR_COLUMNS = 40
"""Upper bound; the bars take the space next to the numbers, if there is enough."""
PADDING_COLUMNS = 2
MIN_NOTE_COLUMNS = 20
"""Notes with less space next to the numbers are printed below them."""
BUCKET_ENDS_MILLISECONDS = (*(step * 10**power for power in range(4) for step in (1, 2, 5)), math.inf)
SHOWN_LABELS = 15
SHOWN_REFUSALS = 5
OUTCOMES = {
    "stored": "stored",
    "lost": "lost",
    "lost_though_accepted": "lost_accepted",
    "lost_by_refusal": "lost_refused",
    "lost_by_giving_up": "lost_given_up",
    "stored_twice": "stored_twice",
    "stored_otherwise": "stored_otherwise",
    "stored_unsent": "stored_unsent",
    "others_seen": "others_seen",
}
"""Key in the output of `--json` -> attribute of `Reconciliation`."""
ERASURES = {
    "erased": "erased",
    "erased_messages": "messages",
    "erased_rejects": "rejects",
    "receipts": "receipts",
    "not_erased": "not_erased",
    "receipts_wrong": "receipts_wrong",
    "eraser_settled": "settled",
}
"""Key in the output of `--json` -> attribute of `ErasureResults`."""
REJECTS = {"rejects_kept": "kept", "rejects_missing": "missing", "rejects_unsent": "unsent"}
"""Key in the output of `--json` -> attribute of `RejectComparison`."""
PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}

WITHOUT_SET_PIECES = (
    f"This run has no set pieces: unusual contents, similar identities and bad keys were not tried. Use --messages "
    f"{PIECES_FROM} or more."
)
_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run."""

    url: str
    seed: int
    customers: int
    ledger: Ledger
    findings: Findings
    in_batches: bool = False
    set_pieces: int = 0

    @property
    def answered_milliseconds(self) -> list[float]:
        """The durations of the answered tries."""
        tries = self.ledger.tries
        return [time for time, label in zip(tries.milliseconds, tries.labels, strict=True) if label[0].isdecimal()]

    def to_json(self) -> dict[str, Any]:
        """Return the form for `--json`."""
        ledger, findings = self.ledger, self.findings
        statuses: Counter[str] = Counter()
        for label, count in ledger.tries.counts.items():
            statuses[label if label in (TIMED_OUT, NO_CONNECTION) else label.split(maxsplit=1)[0]] += count
        return {
            "url": self.url,
            "seed": self.seed,
            "customers": self.customers,
            "interrupted": findings.interrupted,
            "seconds": round(ledger.tries.seconds, 1),
            "messages": len(ledger.messages),
            "set_pieces": self.set_pieces,
            "sent": ledger.begun,
            "requests": ledger.requests,
            "tries": len(ledger.tries.labels),
            "delivered_at_first_try": ledger.at_first_try,
            "delivered_after_retries": ledger.after_retries,
            "given_up": ledger.given_up,
            "refused": ledger.refused,
            "refused_as_expected": ledger.refused_as_expected,
            "accepted_though_invalid": ledger.accepted_though_invalid,
            "unfinished": ledger.begun - ledger.finished,
            "duplicates_refused": ledger.duplicates,
            **{name: getattr(findings.result, attribute, None) for name, attribute in OUTCOMES.items()},
            **{name: getattr(findings.erasures, attribute, None) for name, attribute in ERASURES.items()},
            "rejected": dict(ledger.rejected.most_common()),
            **{name: getattr(findings.rejects, attribute, None) for name, attribute in REJECTS.items()},
            "contacts": findings.contacts and findings.contacts.contacts,
            "contacts_wrong": findings.contacts and findings.contacts.wrong,
            "contact_differences": findings.contacts and [one.to_json() for one in findings.contacts.differences],
            "breaches": findings.breaches.to_json(),
            "answers_by_status": dict(statuses.most_common()),
            "answers": dict(ledger.tries.counts.most_common()),
            "refusals": dict(ledger.refusals.most_common(SHOWN_REFUSALS)),
            "milliseconds": percentiles(self.answered_milliseconds),
        }

    def picture(self, columns: int) -> RenderableType:
        """Return the output for people, for a terminal of this width."""
        times = percentiles(self.answered_milliseconds)
        parts: list[RenderableType] = [
            _numbers(self, columns),
            timeline(self.ledger.tries, columns),
            histogram(self.answered_milliseconds, columns),
            Text("  ".join(f"{name} {time:,} ms" for name, time in times.items()), "dim"),
            *(
                Text(f"Refused finally, {count:,} times: {text}", "red")
                for text, count in self.ledger.refusals.most_common(SHOWN_REFUSALS)
            ),
            *([Text(f"Rejected: {_counted(self.ledger.rejected)}", "dim")] if self.ledger.rejected else []),
            *([] if self.set_pieces else [Text(WITHOUT_SET_PIECES, DOUBTFUL)]),
            *_verdicts(self.findings),
        ]
        return Group(*itertools.chain.from_iterable((part, "") for part in parts[:-1]), parts[-1])


GOOD, DOUBTFUL, BAD = "green", "yellow", "bold red"
_Row = tuple[str, int, str, str]
"""Name, count, style and note."""


def _numbers(run: Run, columns: int) -> RenderableType:
    ledger = run.ledger
    found = run.findings
    what = f"{len(ledger.messages):,} messages of {run.customers:,} customers to {run.url}, seed {run.seed}"
    always: list[_Row] = [
        ("sent", ledger.begun, "", what),
        *([("requests", ledger.requests, "", "with messages of one customer each")] if run.in_batches else []),
        ("delivered at first try", ledger.at_first_try, "", ""),
        ("delivered after retries", ledger.after_retries, "", ""),
        ("given up", ledger.given_up, DOUBTFUL if ledger.given_up else "", "after four hours of retries, compressed"),
        ("duplicates answered", ledger.duplicates, "", ""),
    ]
    sometimes: list[_Row] = [
        ("refused finally", ledger.refused, BAD, "valid messages that their sender drops"),
        ("refused as expected", ledger.refused_as_expected, "", ""),
        ("accepted although invalid", ledger.accepted_though_invalid, BAD, ""),
        ("unfinished", ledger.begun - ledger.finished, DOUBTFUL, "when it was interrupted"),
    ]
    outcome = [
        *(_outcome(found.result) if found.result else ()),
        *(_erased(found.erasures) if found.erasures else ()),
        *(_kept(found.rejects) if found.rejects else ()),
        *(_compared(found.contacts) if found.contacts else ()),
    ]
    rows = (*always, *(row for row in sometimes if row[1]), *outcome)
    table = Table.grid(padding=(0, PADDING_COLUMNS))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    if _room(columns, ("", ""), [(name, f"{count:,}") for name, count, _, _ in rows]) >= MIN_NOTE_COLUMNS:
        for name, count, style, note in rows:
            table.add_row(Text(name, style), Text(f"{count:,}", style), Text(note, "dim"))
        return table
    for name, count, style, _ in rows:
        table.add_row(Text(name, style), Text(f"{count:,}", style))
    notes = (Text(f"{name}: {note}", "dim") for name, _, _, note in rows if note)
    return Group(table, "", *notes)


def _outcome(result: Reconciliation) -> list[_Row]:
    doubles = DOUBTFUL if result.may_double else BAD
    rows: list[_Row] = [
        ("stored", result.stored, "", "of the messages"),
        ("not found" if result.others_may_hold else "lost", result.lost, BAD if result.lost else GOOD, _losses(result)),
        ("stored twice", result.stored_twice, doubles if result.stored_twice else GOOD, ""),
        ("stored otherwise", result.stored_otherwise, BAD if result.stored_otherwise else GOOD, ""),
    ]
    if result.stored_unsent:
        style, note = ("dim", "by earlier runs with this seed") if result.may_have_sent else (BAD, "by nobody")
        rows.append(("stored, but not sent", result.stored_unsent, style, note))
    return rows


def _erased(erasures: ErasureResults) -> list[_Row]:
    counted = (
        f"users: {erasures.messages:,} messages and {erasures.rejects:,} rejects, by {erasures.receipts:,} receipts"
    )
    left = "remaining messages, rejects and deletes of these users"
    return [
        ("erased", erasures.erased, "", counted),
        ("not erased", erasures.not_erased, BAD if erasures.not_erased else GOOD, left if erasures.not_erased else ""),
        ("receipts wrong", erasures.receipts_wrong, BAD if erasures.receipts_wrong else GOOD, ""),
    ]


def _kept(rejects: RejectComparison) -> list[_Row]:
    rows: list[_Row] = [
        ("rejects kept", rejects.kept, "", "of the messages that were refused"),
        ("rejects missing", rejects.missing, BAD if rejects.missing else GOOD, ""),
    ]
    if rejects.unsent:
        style, note = ("dim", "by earlier runs with this seed") if rejects.may_have_sent else (BAD, "")
        rows.append(("rejects, but not sent so", rejects.unsent, style, note))
    return rows


def _compared(contacts: Comparison) -> list[_Row]:
    return [
        ("contacts", contacts.contacts, "", ""),
        ("contacts wrong", contacts.wrong, BAD if contacts.wrong else GOOD, ""),
    ]


def _losses(result: Reconciliation) -> str:
    accepted = "accepted but not stored"
    if result.others_may_hold:
        accepted = (
            f"accepted; {result.others_seen:,} messages of others were seen, so another run or consumer may hold "
            "some of these"
        )
    causes = {
        "refused finally": result.lost_refused,
        "given up": result.lost_given_up,
        accepted: result.lost_accepted,
    }
    return ", ".join(f"{count:,} {cause}" for cause, count in causes.items() if count)


def _counted(codes: Counter[str]) -> str:
    return ", ".join(f"{code} {count:,}" for code, count in codes.most_common())


def _verdicts(findings: Findings) -> Iterator[Text]:
    if findings.result:
        yield _verdict(findings.result, so_far=" so far" if findings.interrupted else "")
    if findings.erasures:
        yield _verdict_on_erasures(findings.erasures)
    if findings.rejects and findings.rejects.failed:
        yield Text("The kept rejects do not match the refused messages.", BAD)
    if findings.contacts:
        yield _verdict_on_contacts(findings.contacts)
    if findings.breaches:
        yield Text("\n".join(findings.breaches.lines()), BAD)


def _verdict(result: Reconciliation, *, so_far: str) -> Text:
    if result.others_may_hold and result.lost == result.lost_accepted and not result.is_wrong:
        return Text("It is unknown whether anything was lost: others use this queue too.", BAD)
    if result.failed:
        return Text("Something was lost, stored twice or with other content, or judged wrongly.", BAD)
    if result.stored_twice:
        return Text(
            f"Nothing was lost{so_far}. A queue may hold a message twice (a FIFO queue one that comes again after "
            "five minutes); its consumer must handle that.",
            DOUBTFUL,
        )
    if not result.messages:
        return Text(f"Nothing had to be stored{so_far}.", DOUBTFUL)
    return Text(f"Nothing was lost{so_far}, nothing was stored twice or with other content.", f"bold {GOOD}")


def _verdict_on_erasures(erasures: ErasureResults) -> Text:
    if not erasures.settled:
        return Text("The eraser does not seem to run: users are left, and it has finished none for two minutes.", BAD)
    if erasures.failed:
        return Text("Data of erased users is left, or their receipts don't match the erased data.", BAD)
    return Text("No data of the erased users is left, and their receipts count everything once.", f"bold {GOOD}")


def _verdict_on_contacts(contacts: Comparison) -> Text:
    if not contacts.wrong:
        return Text("All contacts match the messages.", f"bold {GOOD}")
    shown = "".join(f"\n{difference}" for difference in contacts.differences)
    return Text(f"Contacts do not match the messages:{shown}", BAD)


def percentiles(milliseconds: Iterable[float]) -> dict[str, float]:
    """Return the nearest-rank percentiles of times, rounded; none for no times."""
    times = sorted(milliseconds)
    return {
        name: round(times[math.ceil(share * len(times)) - 1], 1) for name, share in PERCENTILES.items() if times
    }  # fmt: skip


def timeline(tries: Tries, columns: int) -> Table:
    """Draw how often each answer occurred in each slice of the run; each row has its own scale."""
    shown = tries.counts.most_common(SHOWN_LABELS)
    heads: tuple[str, ...] = ("Answer", "How often", f"over {tries.seconds:.1f} s")
    rows: list[_Cells] = [(label, f"{count:,}") for label, count in shown]
    slices = min(TIMELINE_COLUMNS, _room(columns, heads, rows))
    if slices >= len(heads[2]):
        counts = {label: [0] * slices for label in tries.counts}
        for ended, label in zip(tries.ended, tries.labels, strict=True):
            counts[label][min(int(ended / (tries.seconds or 1) * slices), slices - 1)] += 1
        rows = [
            (*row, Text(_sparkline(counts[label]), colour(label))) for row, (label, _) in zip(rows, shown, strict=True)
        ]
    else:
        heads = heads[:2]
    if len(tries.counts) > SHOWN_LABELS:
        rows.append((f"and {len(tries.counts) - SHOWN_LABELS} others",))
    return _table(heads, rows)


def histogram(milliseconds: Sequence[float], columns: int) -> Table:
    """Draw a histogram of the durations of the answers."""
    counts = [0] * len(BUCKET_ENDS_MILLISECONDS)
    for time in milliseconds:
        counts[next(place for place, end in enumerate(BUCKET_ENDS_MILLISECONDS) if time < end)] += 1
    used = [place for place, count in enumerate(counts) if count]
    places = range(min(used, default=0), max(used, default=-1) + 1)
    heads = ("Milliseconds", "Answers", "")
    rows: list[_Cells] = [(_bucket(place), f"{counts[place]:,}") for place in places]
    longest = max(1, min(BAR_COLUMNS, _room(columns, heads, rows)))
    bars = ("█" * round(counts[place] / max(counts) * longest) or ("▏" if counts[place] else "") for place in places)
    table = _table(heads, [(*row, Text(bar, "cyan")) for row, bar in zip(rows, bars, strict=True)])
    table.columns[0].justify = "right"
    return table


def _bucket(place: int) -> str:
    begin = BUCKET_ENDS_MILLISECONDS[place - 1] if place else 0
    end = BUCKET_ENDS_MILLISECONDS[place]
    return f"{begin}-{end}" if end < math.inf else f"{begin} or more"


_Cells = tuple[str | Text, ...]


def _room(columns: int, heads: Sequence[str], rows: Iterable[_Cells]) -> int:
    """Return the number of columns for a picture next to the first two columns."""
    return columns - sum(max(map(len, cells)) + PADDING_COLUMNS for cells in zip(heads[:2], *rows, strict=True))


def _table(heads: Iterable[str], rows: Iterable[_Cells]) -> Table:
    table = Table(box=None, padding=(0, PADDING_COLUMNS, 0, 0), pad_edge=False)
    for head in heads:
        table.add_column(head, no_wrap=True)
    table.columns[1].justify = "right"
    for row in rows:
        table.add_row(*row)
    return table


def colour(label: str) -> str:
    """Return the colour of an answer: green for accepted, yellow for a retry, red for a final refusal."""
    status = label.split(maxsplit=1)[0]
    if not status.isdecimal() or int(status) in RETRIED_BY_SEGMENT:
        return "yellow"
    return "green" if status.startswith("2") else "red"


def _sparkline(counts: Sequence[int]) -> str:
    return "".join(_BARS[(count * len(_BARS) - 1) // max(counts)] if count else " " for count in counts)
