"""boto3's clients with default options: one call, with prepared arguments."""

import boto3

dynamodb = boto3.client("dynamodb")
sqs = boto3.client("sqs")


def put_item(event, context):
    """Put an item; the event is the arguments."""
    dynamodb.put_item(**event)
    return {"statusCode": 200}


def send_message(event, context):
    """Send a message; the event is the arguments."""
    sqs.send_message(**event)
    return {"statusCode": 202}
