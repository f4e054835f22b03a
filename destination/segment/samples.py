"""Sample messages of each call type, from the sample events in `events/`."""

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from destination.paths import ROOT


def sample_message(call_type: str, now: datetime) -> dict[str, Any]:
    """Return the message in `events/`, with times of a moment ago.

    A `delete` names its own user, because it is carried out; the messages of the other call types should stay visible.
    """
    event = json.loads((ROOT / "events" / f"{call_type}.json").read_text("utf-8"))
    message: dict[str, Any] = json.loads(event["body"])
    times = {"originalTimestamp": 2.0, "sentAt": 1.0, "receivedAt": 0.5, "timestamp": 1.5}
    for name, seconds_ago in times.items():
        moment = now - timedelta(seconds=seconds_ago)
        message[name] = moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if call_type == "delete":
        message["userId"] = f"ping-{uuid.uuid4()}"
    return {**message, "messageId": f"ping-{uuid.uuid4()}"}
