"""A queue's messages, brought to a function as Lambda does.

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
    """Brings a queue's messages to a function, one batch at a time, of no more than ten.

    What failed comes again after a short wait, not after the queue's visibility time-out, which is long for somebody
    who watches. How often it comes, and that it then goes to a dead-letter queue, is the queue's own affair.
    """

    def __init__(
        self,
        mapping: QueueMapping,
        consumer: Consumer,
        *,
        sqs: Any,  # noqa: ANN401 -- a client
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
        """Receive and hand over."""
        in_vain = 0
        async with asyncio.TaskGroup() as group:
            while True:
                served = self._traffic.served
                answer = await self._calls.until_answered(
                    self._sqs.receive_message,
                    QueueUrl=self._queue_url,
                    MaxNumberOfMessages=self._batch_size,
                    MessageSystemAttributeNames=["All"],
                    MessageAttributeNames=["All"],
                    WaitTimeSeconds=0,  # an embedded AWS serves nobody else while it waits
                )
                records = [_queue_record(message, self._queue_arn) for message in answer.get("Messages", [])]
                if records:
                    await self._traffic.give_way(len(records))
                for batch in batches(records, self._batch_size):
                    if failed := await self._deliver(batch):
                        group.create_task(self._release(failed))
                in_vain = 0 if records else in_vain + 1
                if in_vain:
                    await self._traffic.next_look(self._pace.look(in_vain), served=served)

    async def _deliver(self, batch: list[JsonObject]) -> list[JsonObject]:
        """Hand a batch over, delete what is done, and return the rest."""
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
        """Let messages be received again after a wait, all at once: those of a group keep their order then."""
        receives = max(int(message["attributes"]["ApproximateReceiveCount"]) for message in failed)
        await asyncio.sleep(self._pace.retry(receives - 1))
        with contextlib.suppress(*STORE_ERRORS):  # then they come after the visibility time-out
            await self._calls.once(
                self._sqs.change_message_visibility_batch,
                QueueUrl=self._queue_url,
                Entries=_entries(failed, VisibilityTimeout=0),
            )


def _queue_record(message: Mapping[str, Any], queue_arn: str) -> JsonObject:
    """Return a message as Lambda spells it."""
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
