"""Make calls like a customer's program with an installed Python library.

Standard input has the library's module, the endpoint, the key, whether to gzip, and the calls. The program prints what
the library passed to `on_error`.
"""

import importlib
import json
import re
import sys
from datetime import datetime

told = json.load(sys.stdin)
errors = []

analytics = importlib.import_module(told["module"])
analytics.write_key = told["key"]
analytics.host = analytics.dataPlaneUrl = told["host"]  # the first is Segment's name, the second RudderStack's
analytics.gzip = told["gzip"]
analytics.on_error = lambda error, batch: errors.append(
    {"error": str(error), "code": getattr(error, "code", None), "calls": len(batch)}
)

for call in told["calls"]:
    fields = {re.sub(r"(?=[A-Z])", "_", name).lower(): value for name, value in call.items()}
    if "timestamp" in fields:
        fields["timestamp"] = datetime.fromisoformat(fields["timestamp"])
    getattr(analytics, fields.pop("type"))(**fields)
analytics.shutdown()
json.dump(errors, sys.stdout)
