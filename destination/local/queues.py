"""Deliver a queue's messages to a function like Lambda.

https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html
"""

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

from destination.local.batches import PACE, BatchError, Calls, Consumer, PollPace, batches, to_json
from destination.local.mappings import QueueMapping
from destination.local.traffic import ServerTraffic
from handler.decode import JsonObject
from handler.errors import STORE_ERRORS

MAX_RECEIVED_MESSAGES = 10
"""https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html"""


class QueueSource:
    """Delivers a queue's messages to a function, in batches of at most ten, one batch at a time.

    Failed messages are delivered again after a short wait instead of the queue's visibility time-out, which is too long
    for somebody who watches. The queue itself counts deliveries, and moves messages to its dead-letter queue.
    """

    def __init__(
        self,
        mapping: QueueMapping,
        consumer: Consumer,
        *,
        sqs: Any,  # noqa: ANN401 -- a boto3 client
        queue_url: str,
        queue_arn: str,
        pace: PollPace = PACE,
        traffic: ServerTraffic | None = None,
    ) -> None:
        self._batch_size = min(mapping.batch_size, MAX_RECEIVED_MESSAGES)
        self._reports_failures = mapping.reports_failures
        self._consumer = consumer
        self._sqs = sqs
        self._queue_url = queue_url
        self._queue_arn = queue_arn
        self._pace = pace
        self._traffic = traffic or ServerTraffic()
        self._calls = Calls(consumer.tell, pace)

    async def run(self) -> None:
        """Receive and deliver messages."""
        empty_polls = 0
        async with asyncio.TaskGroup() as group:
            while True:
                served = self._traffic.served
                answer = await self._calls.until_answered(
                    self._sqs.receive_message,
                    QueueUrl=self._queue_url,
                    MaxNumberOfMessages=self._batch_size,
                    MessageSystemAttributeNames=["All"],
                    MessageAttributeNames=["All"],
                    WaitTimeSeconds=0,  # an embedded AWS answers nobody else while it waits
                )
                records = [_queue_record(message, self._queue_arn) for message in answer.get("Messages", [])]
                if records:
                    await self._traffic.give_way(len(records))
                for batch in batches(records, self._batch_size):
                    if failed := await self._deliver(batch):
                        group.create_task(self._release(failed))
                empty_polls = 0 if records else empty_polls + 1
                if empty_polls:
                    await self._traffic.next_poll(self._pace.wait(empty_polls), served=served)

    async def _deliver(self, batch: list[JsonObject]) -> list[JsonObject]:
        """Deliver a batch, delete the finished messages, and return the failed ones."""
        try:
            failed = await self._consumer.hand_over(
                {message["messageId"]: message for message in batch}, reports_failures=self._reports_failures
            )
        except BatchError:
            return batch
        done = [message for message in batch if message["messageId"] not in failed]
        if done:
            await self._calls.until_answered(
                self._sqs.delete_message_batch, QueueUrl=self._queue_url, Entries=_entries(done)
            )
        return [message for message in batch if message["messageId"] in failed]

    async def _release(self, failed: list[JsonObject]) -> None:
        """Make messages visible again after a wait, all at once: then the order within a group stays the same."""
        receives = max(int(message["attributes"]["ApproximateReceiveCount"]) for message in failed)
        await asyncio.sleep(self._pace.retry(receives - 1))
        with contextlib.suppress(*STORE_ERRORS):  # then they become visible after the visibility time-out
            await self._calls.once(
                self._sqs.change_message_visibility_batch,
                QueueUrl=self._queue_url,
                Entries=_entries(failed, VisibilityTimeout=0),
            )


def _queue_record(message: Mapping[str, Any], queue_arn: str) -> JsonObject:
    """Return a message in Lambda's format."""
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message["Attributes"],
        "messageAttributes": {
            name: {
                **{key[0].lower() + key[1:]: to_json(part) for key, part in attribute.items()},
                "stringListValues": [],
                "binaryListValues": [],
            }
            for name, attribute in message.get("MessageAttributes", {}).items()
        },
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": queue_arn,
        "awsRegion": queue_arn.split(":")[3],
    }


def _entries(messages: Iterable[JsonObject], **more: object) -> list[JsonObject]:
    return [
        {"Id": str(number), "ReceiptHandle": message["receiptHandle"], **more}
        for number, message in enumerate(messages)
    ]
