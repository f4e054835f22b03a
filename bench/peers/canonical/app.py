"""A destination as the documentation of Powertools for AWS Lambda shows how to write a function.

Resolver, logger, metrics, tracer, and boto3's resource with a nested map. `validation.py` next to it decides how
messages are validated.

https://docs.aws.amazon.com/powertools/python/latest/core/event_handler/api_gateway/
https://docs.aws.amazon.com/powertools/python/latest/core/logger/
https://docs.aws.amazon.com/powertools/python/latest/core/metrics/
https://docs.aws.amazon.com/powertools/python/latest/core/tracer/
"""

import base64
import hashlib
import json
import os
import re
import time
from decimal import Decimal

import boto3
from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response, content_types
from aws_lambda_powertools.event_handler.exceptions import BadRequestError, UnauthorizedError
from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.metrics import MetricUnit
from botocore.exceptions import ClientError
from validation import InvalidMessage, check

KEY_CACHE_SECONDS = 60

tracer = Tracer(service="destination")
logger = Logger(service="destination")
metrics = Metrics(namespace="Destination", service="destination")
app = APIGatewayHttpResolver()

dynamodb = boto3.resource("dynamodb")
event_table = dynamodb.Table(os.environ["EVENT_TABLE"])
key_table = dynamodb.Table(os.environ["KEY_TABLE"])

known_keys = {}


@tracer.capture_method
def find_customer(authorization):
    """Return the customer of an API key."""
    try:
        scheme, token = authorization.split(" ", 1)
        key = base64.b64decode(token).decode().split(":", 1)[0]
    except ValueError:
        scheme, key = "", ""
    if scheme != "Basic" or not key:
        raise UnauthorizedError("API key is missing")
    customer, read_at = known_keys.get(key, (None, 0))
    if time.time() - read_at > KEY_CACHE_SECONDS:
        key_hash = hashlib.sha256(key.encode()).hexdigest()
        customer = key_table.get_item(Key={"key_hash": key_hash}, ConsistentRead=True).get("Item")
        known_keys[key] = (customer, time.time())
    if customer is None or customer["status"] != "active":
        raise UnauthorizedError("API key is unknown")
    return customer["customer_id"]


def snake_case(name):
    """Spell a name of Segment's spec as the schemas do."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


@app.post("/segment")
@tracer.capture_method
def receive():
    """Store one message."""
    customer_id = find_customer(app.current_event.headers.get("authorization", ""))
    try:
        payload = json.loads(app.current_event.decoded_body, parse_float=Decimal)
        message = {snake_case(name): value for name, value in payload.items()}
        check(message)
    except (ValueError, KeyError, AttributeError, InvalidMessage) as error:
        logger.warning("Message refused", customer_id=customer_id)
        metrics.add_metric(name="Refused", unit=MetricUnit.Count, value=1)
        raise BadRequestError(f"Message is not valid: {error}") from error
    subject = message.get("user_id") or message["anonymous_id"]
    outcome = "stored"
    try:
        event_table.put_item(
            Item={
                "subject": f"{customer_id}#{subject}",
                "position": f"{message.get('timestamp')}#{message['message_id']}",
                "customer_id": customer_id,
                "type": message["type"],
                "message_id": message["message_id"],
                "message": message,
            },
            ConditionExpression="attribute_not_exists(subject)",
        )
    except ClientError as error:
        if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
            raise
        outcome = "duplicate"
    logger.info("Message accepted", customer_id=customer_id, message_id=message["message_id"], outcome=outcome)
    metrics.add_dimension(name="CallType", value=message["type"])
    metrics.add_metric(name="Accepted", unit=MetricUnit.Count, value=1)
    return Response(
        status_code=200,
        content_type=content_types.APPLICATION_JSON,
        body=json.dumps({"status": outcome, "message_id": message["message_id"]}),
    )


@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_HTTP)
@tracer.capture_lambda_handler
@metrics.log_metrics(capture_cold_start_metric=True)
def lambda_handler(event, context):
    """Answer an event of an HTTP API."""
    return app.resolve(event, context)
