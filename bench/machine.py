"""On what, and of what, figures were taken."""

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from destination.paths import ROOT

PACKAGES = ("boto3", "botocore", "aws-lambda-powertools", "jsonschema", "urllib3")
GIT_SECONDS = 30


def facts() -> dict[str, Any]:
    """Return the date, the commit, the machine, and the versions of what decides most."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": {
            "system": platform.system(),
            "release": platform.release(),
            "processor": _processor(),
            "processors": os.cpu_count(),
            "load": _load(),
        },
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }


def _commit() -> str | None:
    """Return the checkout's commit, with a `+` where files differ from it; None outside git."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=GIT_SECONDS, check=False)  # noqa: S603 -- our own
    except (OSError, subprocess.TimeoutExpired):
        return None
    return told.stdout.strip() or None


def _processor() -> str:
    """Return the processor's name as Linux tells it, else its kind."""
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.machine()


def _load() -> float | None:
    """Return how many processes wanted to run in the last minute: much more than this one makes figures doubtful."""
    try:
        return round(os.getloadavg()[0], 1)
    except OSError:
        return None
