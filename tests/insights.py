"""CloudWatch Logs Insights as an endpoint: it returns the rows that a test wants, and records its queries.

https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_GetQueryResults.html
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from endpoint import Received, endpoint, response

Row = Mapping[str, str]


@dataclass(kw_only=True)
class Insights:
    """The answers and the recorded queries: `rows` by log group, and `statuses` in order."""

    rows: Callable[[str, str], Sequence[Row]]
    statuses: Sequence[str] = ("Complete",)
    error: str | None = None
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)

    @property
    def queries(self) -> list[str]:
        """The queries."""
        return [query["queryString"] for query in self.asked]

    def answer(self, received: Received) -> list[bytes]:
        """Answer a call of its API."""
        [target] = [line for line in received.head.splitlines() if line.lower().startswith("x-amz-target")]
        said = json.loads(received.body)
        return getattr(self, target.rpartition(".")[2])(said)

    def StartQuery(self, said: dict[str, Any]) -> list[bytes]:  # noqa: N802 -- AWS's
        """Begin a query."""
        if self.error:
            return response(400, json.dumps({"__type": self.error, "message": "as a test wants it"}))
        self.asked.append({**said, "looks": 0})
        return response(200, json.dumps({"queryId": str(len(self.asked) - 1)}))

    def GetQueryResults(self, said: dict[str, Any]) -> list[bytes]:  # noqa: N802 -- AWS's
        """Answer with the status of a query."""
        query = self.asked[int(said["queryId"])]
        status = self.statuses[min(query["looks"], len(self.statuses) - 1)]
        query["looks"] += 1
        rows = self.rows(query["logGroupName"], query["queryString"]) if status == "Complete" else []
        results = [[{"field": name, "value": value} for name, value in {**row, "@ptr": "p"}.items()] for row in rows]
        return response(
            200, json.dumps({"status": status, "results": results, "statistics": {"bytesScanned": 2_500_000.0}})
        )

    def StopQuery(self, said: dict[str, Any]) -> list[bytes]:  # noqa: N802 -- AWS's
        """Stop a query."""
        self.stopped.append(said["queryId"])
        return response(200, '{"success": true}')


@contextmanager
def insights(rows: Callable[[str, str], Sequence[Row]], **options: Any) -> Iterator[Insights]:
    """Run it."""
    played = Insights(rows=rows, **options)
    with endpoint(played.answer) as server:
        played.url = server.url.removesuffix("/segment")
        yield played
