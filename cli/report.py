"""What `destination simulate` tells at its end: the reconciliation, the answers over time, and how long they took."""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cli.deliver import NO_CONNECTION, RETRIED_STATUSES, TIMED_OUT, Ledger, Tries
from cli.reconcile import Reconciliation

TIMELINE_COLUMNS = 36
BAR_COLUMNS = 40
BUCKET_ENDS_MILLISECONDS = (*(step * 10**power for power in range(4) for step in (1, 2, 5)), math.inf)
SHOWN_LABELS = 15
SHOWN_REFUSALS = 5
PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}

_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run that is over."""

    url: str
    seed: int
    customers: int
    ledger: Ledger
    result: Reconciliation
    interrupted: bool

    @property
    def answered_milliseconds(self) -> list[float]:
        """What the tries took that were answered."""
        tries = self.ledger.tries
        return [time for time, label in zip(tries.milliseconds, tries.labels, strict=True) if label[0].isdecimal()]

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        ledger, result = self.ledger, self.result
        statuses: Counter[str] = Counter()
        for label, count in ledger.tries.counts.items():
            statuses[label if label in (TIMED_OUT, NO_CONNECTION) else label.split(maxsplit=1)[0]] += count
        return {
            "url": self.url,
            "seed": self.seed,
            "customers": self.customers,
            "interrupted": self.interrupted,
            "seconds": round(max(ledger.tries.ended, default=0.0), 1),
            "messages": result.messages,
            "sent": ledger.begun,
            "tries": len(ledger.tries.labels),
            "delivered_at_first_try": ledger.at_first_try,
            "delivered_after_retries": ledger.after_retries,
            "given_up": ledger.given_up,
            "refused": ledger.refused,
            "refused_as_expected": ledger.refused_as_expected,
            "accepted_though_invalid": ledger.accepted_though_invalid,
            "unfinished": ledger.begun - ledger.finished,
            "duplicates_refused": ledger.tries.duplicates,
            "stored": result.stored,
            "lost": result.lost,
            "lost_though_accepted": result.lost_accepted,
            "lost_by_refusal": result.lost_refused,
            "lost_by_giving_up": result.lost_given_up,
            "stored_twice": result.stored_twice,
            "answers_by_status": dict(statuses.most_common()),
            "answers": dict(ledger.tries.counts.most_common()),
            "refusals": dict(ledger.refusals.most_common(SHOWN_REFUSALS)),
            "milliseconds": percentiles(self.answered_milliseconds),
        }

    def picture(self) -> RenderableType:
        """Return what people are shown."""
        times = percentiles(self.answered_milliseconds)
        parts: list[RenderableType] = [
            _numbers(self),
            timeline(self.ledger.tries),
            histogram(self.answered_milliseconds),
            Text("  ".join(f"{name} {time:,} ms" for name, time in times.items()), "dim"),
            *(
                Text(f"Refused for good, {count:,} times: {text}", "red")
                for text, count in self.ledger.refusals.most_common(SHOWN_REFUSALS)
            ),
            _verdict(self.result),
        ]
        return Group(*itertools.chain.from_iterable((part, "") for part in parts[:-1]), parts[-1])


def _numbers(run: Run) -> Table:
    ledger, result = run.ledger, run.result
    good, bad = "green", "bold red"
    doubles = "yellow" if result.may_double else bad
    rows = Table.grid(padding=(0, 2))
    rows.add_column()
    rows.add_column(justify="right")
    rows.add_column(style="dim")
    what = f"{result.messages:,} messages of {run.customers:,} customers to {run.url}, seed {run.seed}"
    always = (
        ("sent", ledger.begun, "", what),
        ("delivered at first try", ledger.at_first_try, "", ""),
        ("delivered after retries", ledger.after_retries, "", ""),
        ("given up", ledger.given_up, "yellow" if ledger.given_up else "", "after four hours of retries, compressed"),
        ("stored", result.stored, "", "of the messages"),
        ("duplicates refused", ledger.tries.duplicates, "", ""),
    )
    sometimes = (
        ("refused for good", ledger.refused, bad, "valid messages that Segment drops"),
        ("refused as expected", ledger.refused_as_expected, "", ""),
        ("accepted though invalid", ledger.accepted_though_invalid, bad, ""),
        ("unfinished", ledger.begun - ledger.finished, "yellow", "when it was interrupted"),
    )
    outcome = (
        ("lost", result.lost, bad if result.lost else good, _losses(result)),
        ("stored twice", result.stored_twice, doubles if result.stored_twice else good, ""),
    )
    for name, count, style, note in (*always, *(row for row in sometimes if row[1]), *outcome):
        rows.add_row(Text(name, style), Text(f"{count:,}", style), Text(note))
    return rows


def _losses(result: Reconciliation) -> str:
    causes = {
        "accepted but not stored": result.lost_accepted,
        "refused for good": result.lost_refused,
        "given up": result.lost_given_up,
    }
    return ", ".join(f"{count:,} {cause}" for cause, count in causes.items() if count)


def _verdict(result: Reconciliation) -> Text:
    if result.failed:
        return Text("Something was lost, stored twice or judged wrongly.", "bold red")
    if result.stored_twice:
        return Text("Nothing was lost. A standard queue may hold a message twice; its consumer has to know.", "yellow")
    return Text("Nothing was lost, nothing was stored twice.", "bold green")


def percentiles(milliseconds: Iterable[float]) -> dict[str, float]:
    """Return the nearest-rank percentiles of times, rounded; none of no times."""
    times = sorted(milliseconds)
    return {
        name: round(times[math.ceil(share * len(times)) - 1], 1) for name, share in PERCENTILES.items() if times
    }  # fmt: skip


def timeline(tries: Tries) -> Table:
    """Draw how often each answer came in each slice of the run, every row to the scale of its own busiest slice."""
    seconds = max(tries.ended, default=0.0)
    slices: dict[str, list[int]] = {label: [0] * TIMELINE_COLUMNS for label in tries.counts}
    for ended, label in zip(tries.ended, tries.labels, strict=True):
        slices[label][min(int(ended / (seconds or 1) * TIMELINE_COLUMNS), TIMELINE_COLUMNS - 1)] += 1
    rows = Table("Answer", box=None, padding=(0, 2, 0, 0))
    rows.add_column("How often", justify="right")
    rows.add_column(f"over {seconds:.1f} s", no_wrap=True)
    for label, count in tries.counts.most_common(SHOWN_LABELS):
        rows.add_row(Text(label), f"{count:,}", Text(_sparkline(slices[label]), colour(label)))
    if len(slices) > SHOWN_LABELS:
        rows.add_row(f"and {len(slices) - SHOWN_LABELS} others", "", "")
    return rows


def histogram(milliseconds: Sequence[float]) -> Table:
    """Draw how many answers took how long."""
    counts = [0] * len(BUCKET_ENDS_MILLISECONDS)
    for time in milliseconds:
        counts[next(place for place, end in enumerate(BUCKET_ENDS_MILLISECONDS) if time < end)] += 1
    used = [place for place, count in enumerate(counts) if count]
    rows = Table("Milliseconds", box=None, padding=(0, 2, 0, 0))
    rows.columns[0].justify = "right"
    rows.add_column("Answers", justify="right")
    rows.add_column("")
    for place in range(min(used, default=0), max(used, default=-1) + 1):
        begin = BUCKET_ENDS_MILLISECONDS[place - 1] if place else 0
        end = BUCKET_ENDS_MILLISECONDS[place]
        bar = "█" * round(counts[place] / max(counts) * BAR_COLUMNS) or ("▏" if counts[place] else "")
        rows.add_row(
            f"{begin}-{end}" if end < math.inf else f"{begin} or more", f"{counts[place]:,}", Text(bar, "cyan")
        )
    return rows


def colour(label: str) -> str:
    """Choose a colour for what an answer means to Segment: green for accepted, yellow for a retry, red for the end."""
    status = label.split(maxsplit=1)[0]
    if not status.isdecimal() or int(status) in RETRIED_STATUSES:
        return "yellow"
    return "green" if status.startswith("2") else "red"


def _sparkline(counts: Sequence[int]) -> str:
    return "".join(_BARS[(count * len(_BARS) - 1) // max(counts)] if count else " " for count in counts)
