"""The smallest function that writes a message, with the destination's client.

It loads without garbage collection, as the destination does. The difference between the two is the destination's work.
"""

import gc

gc.disable()

import json
import os

from handler.clients import connect

TABLE = os.environ["EVENT_TABLE"]

client = connect("dynamodb", direct=True)
gc.freeze()
gc.enable()


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
