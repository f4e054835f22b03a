"""The progress of a deployment towards Segment's private beta."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from destination.deployment.key_table import KeyTable
from destination.deployment.target import StackLogs, Target
from destination.watching.request_log import Figures, Period, RequestLog
from handler.keys import Status

BETA_CUSTOMERS = 10
BETA_EVENTS = 20_000_000
"""Segment's requirements for the end of the private beta; one of the two suffices."""
NAMESPACE = "DirectDestination"
"""The namespace of the function's metrics (`handler/observe.py`)."""
METRIC_DAYS = 455
"""CloudWatch keeps a metric for this many days."""
SECONDS_PER_DAY = 24 * 60 * 60
UNKNOWN = "(unknown)"
PLAYED = ("simulated-", "certify-")
"""Prefixes of customers that `destination simulate` and `certify` create: they don't count for the beta."""


@dataclass(frozen=True, kw_only=True)
class BetaProgress:
    """The progress: the events accepted since a day, and the customers with an accepted event in a period.

    `holders` is the number of customers with active keys.
    """

    events: int
    since: date | None
    source: str
    customers: int
    period: str
    holders: int

    @property
    def is_reached(self) -> bool:
        """Return whether Segment's requirement is met."""
        return self.customers >= BETA_CUSTOMERS or self.events >= BETA_EVENTS


def beta_progress(target: Target, log: RequestLog, figures: Figures, period: Period) -> BetaProgress:
    """Return the progress towards the private beta; raises one of `STORE_ERRORS`."""
    keys = KeyTable(target.account.dynamodb(), target.stores.key_table)
    holders = len({key.customer_id for key in keys if key.effective_status == Status.ACTIVE})
    if isinstance(target.logs, StackLogs):
        events, since = _accepted_of_stack(target, target.logs)
        source = "CloudWatch's metric"
    else:
        figures, period = log.figures(Period.everything()), Period.everything()
        events, since = figures.total.accepted, figures.first and figures.first.date()
        source = "the log"
    return BetaProgress(
        events=events,
        since=since,
        source=source,
        customers=len([customer for customer in figures.senders if not customer.startswith(PLAYED)]),
        period=period.words,
        holders=holders,
    )


def _accepted_of_stack(target: Target, logs: StackLogs) -> tuple[int, date | None]:
    """Return how many messages were accepted, and since when, by a metric, which is kept longer than lines."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    days = (
        target.account.cloudwatch()
        .get_metric_statistics(
            Namespace=NAMESPACE,
            MetricName="Accepted",
            Dimensions=[{"Name": "service", "Value": logs.stack}],
            StartTime=today - timedelta(days=METRIC_DAYS - 1),
            EndTime=today + timedelta(days=1),
            Period=SECONDS_PER_DAY,
            Statistics=["Sum"],
        )
        .get("Datapoints", [])
    )
    since = min((day["Timestamp"].date() for day in days if "Timestamp" in day), default=None)
    return round(sum(day.get("Sum", 0) for day in days)), since
