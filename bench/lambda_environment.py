"""The environment variables of a function: Lambda's own, and those that template.yaml sets.

https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
"""

import os
from collections.abc import Mapping
from pathlib import Path

from destination.deployment.clients import LOCAL_CREDENTIALS, LOCAL_REGION
from destination.deployment.stack import FUNCTION, load_template
from destination.paths import ROOT

EVENT_TABLE = "events"
SESSION_TOKEN = "A" * 800
"""About as long as Lambda's; each request carries and signs it."""


def lambda_environment(*, store_url: str, task_root: Path) -> dict[str, str]:
    """Return the variables that Lambda sets, with a store instead of AWS and without this machine's AWS settings."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "AWS_DEFAULT_REGION": LOCAL_REGION,
        "AWS_REGION": LOCAL_REGION,
        **{name.upper(): value for name, value in LOCAL_CREDENTIALS.items()},
        "AWS_SESSION_TOKEN": SESSION_TOKEN,
        "AWS_ENDPOINT_URL": store_url,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
        "AWS_LAMBDA_FUNCTION_NAME": "bench",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/bench",
        "AWS_LAMBDA_LOG_STREAM_NAME": "2026/03/12/[$LATEST]0123456789abcdef0123456789abcdef",
        "LAMBDA_TASK_ROOT": str(task_root),
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "_X_AMZN_TRACE_ID": "Root=1-00000000-000000000000000000000000;Parent=0000000000000000;Sampled=0",
        "PYTHONDONTWRITEBYTECODE": "1",  # Lambda's file system is read-only
        "PYTHONHASHSEED": "0",  # two runs fill their dictionaries alike
    }


def destination_environment(*, store_url: str, overrides: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that template.yaml sets: the default of a parameter, or an invented name of a store."""
    template = load_template()
    variables = template["Resources"][FUNCTION]["Properties"]["Environment"]["Variables"]
    environment: dict[str, str] = {}
    for name, value in variables.items():
        parameter = template["Parameters"].get(value.get("Ref")) if isinstance(value, dict) else None
        if parameter is not None:
            environment[name] = str(parameter["Default"])
        elif name.endswith("_URL"):
            environment[name] = f"{store_url}/123456789012/{name.lower()}"
        else:
            environment[name] = name.lower() if isinstance(value, dict) else str(value)
    return {**environment, "AWS_ENDPOINT_URL": store_url, "EVENT_TABLE": EVENT_TABLE, **overrides}


def peer_environment() -> dict[str, str]:
    """Return the variables of the functions in `peers/`; tracing is off, as in the destination."""
    return {
        "EVENT_TABLE": EVENT_TABLE,
        "KEY_TABLE": "keys",
        "SCHEMAS": str(ROOT / "schemas"),
        "POWERTOOLS_TRACE_DISABLED": "true",
    }
