"""At how many messages per second which limit of AWS, or of Segment, is met, and what to ask for."""

from collections.abc import Iterator
from dataclasses import dataclass

from bench.cost_model import Assumption, Case, Store

HTTP_API_RATE = 10_000
"""Requests per second, of an account in a Region.

https://docs.aws.amazon.com/apigateway/latest/developerguide/limits.html
"""
LAMBDA_CONCURRENCY = 1_000
"""Environments, of an account in a Region. https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html"""
LAMBDA_REQUESTS_PER_ENVIRONMENT = 10
"""Requests per second for each environment that the account may have, however short they are; same page."""
LAMBDA_STEP = 1_000
"""Environments that a function may gain in 10 seconds.

https://docs.aws.amazon.com/lambda/latest/dg/scaling-behavior.html
"""
NEW_TABLE_WRITE_UNITS = 4_000
"""Per second, of a table on demand that has never had more; then twice the peak of the last 30 minutes.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/warm-throughput.html
"""
PARTITION_WRITE_UNITS = 1_000
"""Per second, of one partition, and so of one partition key; same page."""
TABLE_WRITE_UNITS = 40_000
"""Per second, of a table on demand.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ServiceQuotas.html
"""
FIFO_GROUP_RATE = 300
"""Sends per second, of a partition and so of one message group; 3,000 messages in batches, which we don't send.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
"""
FIFO_QUEUE_RATE = 70_000
"""Sends per second, of a queue of high throughput in us-east-1; 19,000 and less elsewhere; same page."""
SEGMENT_FAILING_RATE = 1_000
"""Failing requests per second. https://segment.com/docs/connections/rate-limits/"""

ALL = "all"
"""Whatever the store is."""
OUTAGE = "an outage"
HOT_USER_SHARE = Assumption(
    what="the busiest user's share of all messages",
    value=0.1,
    unit="of all",
    why="a bot, or a job that sends all under one id; usual users are far from it",
)


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A limit, of which store, when it counts, from how many messages per second on, and what to do about it."""

    name: str
    store: str
    when: str
    rate: float
    ask: str


def limits(case: Case) -> list[Limit]:
    """Return what bounds a case, the lowest first."""
    return sorted((*_common(case), *_of_store(case)), key=lambda limit: limit.rate)


def _common(case: Case) -> Iterator[Limit]:
    yield Limit(
        name="Segment's failing requests",
        store=ALL,
        when=OUTAGE,
        rate=SEGMENT_FAILING_RATE,
        ask="Segment, before it happens: not to cut retries; and a replay after it",
    )
    yield Limit(
        name="Lambda's environments per 10 s",
        store=ALL,
        when="a jump from nothing",
        rate=LAMBDA_STEP / (case.cold_milliseconds / 1000),
        ask="nothing can be asked for; provisioned concurrency before a known jump, or a rate that rises over a minute",
    )
    yield Limit(
        name="Lambda's requests per second",
        store=ALL,
        when="always",
        rate=LAMBDA_CONCURRENCY * LAMBDA_REQUESTS_PER_ENVIRONMENT,
        ask="Lambda *Concurrent executions*: a tenth of the messages per second, although far fewer are busy",
    )
    yield Limit(
        name="HTTP API requests",
        store=ALL,
        when="always",
        rate=HTTP_API_RATE,
        ask="API Gateway *Throttle rate*: twice the messages per second",
    )
    yield Limit(
        name="Lambda's environments",
        store=ALL,
        when="always",
        rate=LAMBDA_CONCURRENCY / (case.milliseconds / 1000),
        ask="see requests per second, which is met before",
    )


def _of_store(case: Case) -> Iterator[Limit]:
    if case.sample.store is Store.DYNAMODB:
        yield from _of_table(case.write_units)
    elif case.sample.store is Store.FIFO:
        yield from _of_fifo_queue()


def _of_table(write_units: int) -> Iterator[Limit]:
    yield Limit(
        name="one partition key",
        store=Store.DYNAMODB,
        when="a hot user",
        rate=PARTITION_WRITE_UNITS / write_units / HOT_USER_SHARE.value,
        ask="nothing can be asked for; `EventSink=sqs` with a standard queue has no such limit",
    )
    yield Limit(
        name="a new table",
        store=Store.DYNAMODB,
        when="a jump from nothing",
        rate=NEW_TABLE_WRITE_UNITS / write_units,
        ask="set the table's warm throughput before, which costs once; or double each 30 minutes",
    )
    yield Limit(
        name="the table's quota",
        store=Store.DYNAMODB,
        when="always",
        rate=TABLE_WRITE_UNITS / write_units,
        ask="DynamoDB *Table-level write throughput limit*: half more than messages per second times their write units",
    )


def _of_fifo_queue() -> Iterator[Limit]:
    yield Limit(
        name="one message group",
        store=Store.FIFO,
        when="a hot user",
        rate=FIFO_GROUP_RATE / HOT_USER_SHARE.value,
        ask="nothing can be asked for; a standard queue has no such limit",
    )
    yield Limit(
        name="the FIFO queue",
        store=Store.FIFO,
        when="always",
        rate=FIFO_QUEUE_RATE,
        ask="SQS support; it is lower in other Regions",
    )
