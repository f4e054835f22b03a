"""What a request leaves behind: one structured line that is also its metric (CloudWatch embedded metric format).

The line holds facts and never a key or a body. The metric counts the request once, as Accepted, Duplicate, Refused or
Failed, by call type and code, so that the four add up to the requests; both dimensions take few values, none of them
a caller's own.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

SERVICE = "direct-destination"
NAMESPACE = "DirectDestination"
MAX_LOGGED_CHARS = 100
"""Of a caller's own text, such as a message id that is not known to be valid yet."""

# Plain json.dumps escapes all that is not ASCII, so that no text of a caller can break the line.
_logger = Logger(service=SERVICE, json_serializer=json.dumps)
_metrics = Metrics(namespace=NAMESPACE, service=SERVICE)


class RequestLine:
    """Collects what is known of one request while it is answered."""

    def __init__(self, request_id: str) -> None:
        self._facts: dict[str, Any] = {"request_id": request_id}
        self._milliseconds: dict[str, float] = {}
        self._began = perf_counter()

    def note(self, **facts: object) -> None:
        """Add facts; a caller's own text is cut short."""
        self._facts.update(
            (name, value[:MAX_LOGGED_CHARS] if isinstance(value, str) else value) for name, value in facts.items()
        )

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step."""
        began = perf_counter()
        try:
            yield
        finally:
            self._milliseconds[name] = _milliseconds_since(began)

    def write(self, metric: str, status: int, code: str | None = None) -> None:
        """Print the line, which counts the request under a metric."""
        self._milliseconds["total"] = _milliseconds_since(self._began)
        self.note(outcome=metric.lower(), status=status, code=code, milliseconds=self._milliseconds)
        for dimension, value in (("CallType", self._facts.get("call_type")), ("Code", code)):
            if value is not None:
                _metrics.add_dimension(name=dimension, value=value)
        _metrics.add_metric(name=metric, unit=MetricUnit.Count, value=1)
        line = {**_metrics.serialize_metric_set(), **self._facts}
        _metrics.clear_metrics()
        _logger.info("request", **line)


def _milliseconds_since(began: float) -> float:
    return round((perf_counter() - began) * 1000, 3)
