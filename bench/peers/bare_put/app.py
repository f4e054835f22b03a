"""The smallest function that writes a message: one put, without any checks."""

import json
import os

import boto3

TABLE = os.environ["EVENT_TABLE"]

client = boto3.client("dynamodb")


def lambda_handler(event, context):
    """Put a message."""
    message = json.loads(event["body"])
    client.put_item(
        TableName=TABLE,
        Item={
            "subject": {"S": message["userId"]},
            "position": {"S": message["messageId"]},
            "message": {"S": event["body"]},
        },
    )
    return {"statusCode": 200, "body": "{}"}
