"""`destination queue`: show messages that wait in the event queue or its dead-letter queue."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from consumer.runtime.stored import Unreadable, read_queue_message
from destination.commands.options import json_option, target_options
from destination.console import Rows, counted, stdout
from destination.deployment.target import Target

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

HIDDEN_SECONDS = 20
"""If the command is killed before it releases a message, the message is hidden from the consumer for this time."""
MESSAGES_OF_A_CALL = 10
"""https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html"""


@click.group()
def queue() -> None:
    """Show waiting messages of the event queue."""


@queue.command()
@click.option("--limit", default=10, show_default=True, type=click.IntRange(1, 100), help="How many messages, at most.")
@click.option("--dead-letters", is_flag=True, help="Read the dead-letter queue instead.")
@json_option("Print a JSON object per line, for programs.")
@target_options
def peek(*, target: Target, limit: int, dead_letters: bool, as_json: bool) -> None:
    """Show some messages of the queue, and leave them there.

    SQS returns a sample, in no particular order. It counts each look as a receive. A message that is received as often
    as the queue allows moves to the dead-letter queue. The consumer does not get the messages during the look.

    \b
    Example:
      destination queue peek --stack direct-destination --dead-letters
    """
    client = target.account.sqs()
    url = target.stores.event_queue_url
    if dead_letters:
        url = _dead_letter_queue(client, url)
    with _messages(client, url, limit) as found:
        if as_json:
            for message in found:
                click.echo(json.dumps(_to_json(message)))
        else:
            rows = Rows(
                "Sent (UTC)", "Customer", "Type", "Receives", "Message id", right=(3,), whole=(0, 4), folded=(1,)
            )
            for message in found:
                rows.add_row(*_columns(message))
            stdout().print(rows)
        attributes = client.get_queue_attributes(
            QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        )["Attributes"]
    about = sum(map(int, attributes.values()))
    click.echo(f"{counted(len(found), 'message')} of about {about:,} in {url}.", err=True)
    if target.stores.sink.is_queryable and not dead_letters:
        click.echo(
            "This deployment stores messages in its event table (destination messages list). Its queue has only what "
            "the consumer takes from there: messages to retry, replays and delete messages.",
            err=True,
        )


def _dead_letter_queue(client: "SQSClient", url: str) -> str:
    """Return the URL of a queue's dead-letter queue; raises `click.ClickException` if it has none."""
    answer = client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn", "RedrivePolicy"])
    policy = answer["Attributes"].get("RedrivePolicy")
    if policy is None:
        raise click.ClickException(f"{url} has no dead-letter queue")
    name = json.loads(policy)["deadLetterTargetArn"].rpartition(":")[2]
    return client.get_queue_url(QueueName=name)["QueueUrl"]


@contextmanager
def _messages(client: "SQSClient", url: str, limit: int) -> Iterator[list[Mapping[str, Any]]]:
    """Receive messages, and release them at the end."""
    found: dict[str, Mapping[str, Any]] = {}
    try:
        while len(found) < limit:
            answer = client.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=min(limit - len(found), MESSAGES_OF_A_CALL),
                VisibilityTimeout=HIDDEN_SECONDS,
                MessageSystemAttributeNames=["SentTimestamp", "ApproximateReceiveCount"],
                MessageAttributeNames=["All"],
            )
            messages = answer.get("Messages", [])
            if not messages:
                break
            found.update((message["MessageId"], message) for message in messages)
        yield list(found.values())
    finally:
        for message in found.values():
            client.change_message_visibility(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)


def _columns(message: Mapping[str, Any]) -> tuple[str, ...]:
    facts = _to_json(message)
    content = facts["message"] or {}
    texts = [facts["customer_id"] or "?", content.get("type"), facts["receives"], content.get("message_id")]
    return facts["sent_at"].replace("T", " ")[: len("2020-05-09 23:54:49")], *(str(text or "?") for text in texts)


def _to_json(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the form for `--json`; `body` is there only if the consumer can't read the message."""
    sent_at = datetime.fromtimestamp(int(message["Attributes"]["SentTimestamp"]) / 1000, UTC)
    facts = {
        "sent_at": sent_at.isoformat(timespec="milliseconds"),
        "receives": int(message["Attributes"]["ApproximateReceiveCount"]),
        "sqs_message_id": message["MessageId"],
    }
    try:
        stored = read_queue_message(message["Body"])
    except Unreadable as error:
        return {**facts, "customer_id": None, "message": None, "unreadable": str(error), "body": message["Body"]}
    return {**facts, "customer_id": stored.customer_id, "message": stored.message}
