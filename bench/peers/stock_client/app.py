"""boto3's clients as they come, with no options: one call, of arguments that stand ready."""

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
