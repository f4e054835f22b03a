"""Deliver the records of a table's stream to a function like Lambda.

https://docs.aws.amazon.com/lambda/latest/dg/with-ddb.html
https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-batchfailurereporting.html
"""

import asyncio
import json
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from destination.deployment.clients import LOCAL_REGION
from destination.local.batches import PACE, BatchError, Calls, Consumer, PollPace, batches, to_json
from destination.local.mappings import StreamMapping, fits
from destination.local.traffic import ServerTraffic
from handler.decode import JsonObject
from handler.errors import STORE_ERRORS

MAX_READ_RECORDS = 100
"""Limit for one read. The API allows 1,000, which would block the event loop and the embedded AWS for too long.

https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_GetRecords.html
"""


class StreamSource:
    """Delivers a table's changes to a function, in order, one batch of a shard at a time.

    `streams` and `sqs` are clients. A batch that is given up goes to the queue at `dead_letter_url`; without one, it is
    only reported.
    """

    def __init__(
        self,
        mapping: StreamMapping,
        consumer: Consumer,
        *,
        streams: Any,  # noqa: ANN401 -- a boto3 client
        stream_arn: str,
        sqs: Any,  # noqa: ANN401 -- a boto3 client
        dead_letter_url: str | None,
        pace: PollPace = PACE,
        traffic: ServerTraffic | None = None,
    ) -> None:
        self._mapping = mapping
        self._consumer = consumer
        self._streams = streams
        self._stream_arn = stream_arn
        self._sqs = sqs
        self._dead_letter_url = dead_letter_url
        self._pace = pace
        self._traffic = traffic or ServerTraffic()
        self._calls = Calls(consumer.tell, pace)

    async def run(self) -> None:
        """Read all shards, each after its parent."""
        readers: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                answer = await self._calls.until_answered(self._streams.describe_stream, StreamArn=self._stream_arn)
                shards = {shard["ShardId"]: shard for shard in answer["StreamDescription"]["Shards"]}
                unfinished = {name for name in shards if name not in readers or not readers[name].done()}
                for name, shard in shards.items():
                    if name not in readers and shard.get("ParentShardId") not in unfinished:
                        readers[name] = group.create_task(self._read(name))
                await asyncio.sleep(self._pace.shards)

    async def _read(self, shard_id: str) -> None:
        """Read a shard to its end, if it has one."""
        iterator = last = None
        empty_polls = 0
        while True:
            served = self._traffic.served
            try:
                if iterator is None:
                    iterator = await self._iterator(shard_id, last)
                answer = await self._calls.once(
                    self._streams.get_records, ShardIterator=iterator, Limit=MAX_READ_RECORDS
                )
            except STORE_ERRORS:
                iterator = None  # it may have expired
                continue
            if answer["Records"]:
                await self._traffic.give_way(len(answer["Records"]))
            records = [_stream_record(record, self._stream_arn) for record in answer["Records"]]
            for batch in batches(filter(self._passes, records), self._mapping.batch_size):
                await self._deliver(shard_id, batch)
            iterator = answer.get("NextShardIterator")
            if iterator is None:
                return
            if records:
                last = _sequence_number(records[-1])
                iterator = None  # it may expire meanwhile
            empty_polls = 0 if records else empty_polls + 1
            if len(records) < MAX_READ_RECORDS:
                await self._traffic.next_poll(self._pace.wait(empty_polls), served=served)

    async def _iterator(self, shard_id: str, last: str | None) -> str:
        """Return the iterator after the last delivered record."""
        position = (
            {"ShardIteratorType": "TRIM_HORIZON"}
            if last is None
            else {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": last}
        )
        answer = await self._calls.once(
            self._streams.get_shard_iterator, StreamArn=self._stream_arn, ShardId=shard_id, **position
        )
        iterator: str = answer["ShardIterator"]
        return iterator

    def _passes(self, record: JsonObject) -> bool:
        patterns = self._mapping.patterns
        return patterns is None or any(fits(pattern, record) for pattern in patterns)

    async def _deliver(self, shard_id: str, batch: list[JsonObject]) -> None:
        """Deliver a batch until all of it is done, or given up.

        If the function reports failures, the batch is delivered again from the first failure on. If the function fails
        as a whole, the batch is halved if the mapping says so; that does not count as a retry.
        """
        waiting = deque([(batch, 0)])
        while waiting:
            records, failures = waiting.popleft()
            done, error = await self._hand_over(records)
            if done == len(records):
                continue
            if done:
                waiting.appendleft((records[done:], 0))
            elif error and self._mapping.bisects and len(records) > 1:
                middle = len(records) // 2
                waiting.extendleft([(records[middle:], failures), (records[:middle], failures)])
            elif failures == self._mapping.max_retries:
                await self._give_up(shard_id, records, invocations=failures + 1, error=error)
                continue
            else:
                waiting.appendleft((records, failures + 1))
            await asyncio.sleep(self._pace.retry(failures))

    async def _hand_over(self, records: Sequence[JsonObject]) -> tuple[int, bool]:
        """Return the number of finished records before the first failure, and whether the function failed as such."""
        numbered = {_sequence_number(record): record for record in records}
        try:
            failed = await self._consumer.hand_over(numbered, reports_failures=self._mapping.reports_failures)
        except BatchError:
            return 0, True
        return min((list(numbered).index(number) for number in failed), default=len(records)), False

    async def _give_up(self, shard_id: str, records: list[JsonObject], *, invocations: int, error: bool) -> None:
        numbers = [_sequence_number(record) for record in records]
        self._consumer.tell(
            f"{_records(len(records))} given up after {invocations} tries"
            + (f": see the queue {self._dead_letter_url.rpartition('/')[2]}" if self._dead_letter_url else "")
        )
        if self._dead_letter_url is None:
            return
        first, last = (_iso(record["dynamodb"]["ApproximateCreationDateTime"]) for record in (records[0], records[-1]))
        account_id = self._stream_arn.split(":")[4]
        # https://docs.aws.amazon.com/lambda/latest/dg/services-dynamodb-errors.html
        letter = {
            "requestContext": {
                "requestId": str(uuid.uuid4()),
                "functionArn": f"arn:aws:lambda:{LOCAL_REGION}:{account_id}:function:{self._consumer.name}",
                "condition": "RetryAttemptsExhausted",
                "approximateInvokeCount": invocations,
            },
            "responseContext": {
                "statusCode": 200,
                "executedVersion": "$LATEST",
                "functionError": "Unhandled" if error else None,
            },
            "version": "1.0",
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "DDBStreamBatchInfo": {
                "shardId": shard_id,
                "startSequenceNumber": numbers[0],
                "endSequenceNumber": numbers[-1],
                "approximateArrivalOfFirstRecord": first,
                "approximateArrivalOfLastRecord": last,
                "batchSize": len(records),
                "streamArn": self._stream_arn,
            },
        }
        await self._calls.until_answered(
            self._sqs.send_message, QueueUrl=self._dead_letter_url, MessageBody=json.dumps(letter)
        )


def _stream_record(record: Mapping[str, Any], stream_arn: str) -> JsonObject:
    """Return a record in Lambda's format."""
    return {**to_json(record), "eventSourceARN": stream_arn}


def _sequence_number(record: JsonObject) -> str:
    number: str = record["dynamodb"]["SequenceNumber"]
    return number


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _records(count: int) -> str:
    return "1 record" if count == 1 else f"{count} records"
