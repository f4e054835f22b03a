"""The previous release of the product, from the history of the checkout: its template, its functions, its commands."""

import io
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

from deployed.stack import BUILT, DeployedStack
from destination.artifact import OURS
from destination.deployment.stack import FUNCTION, load_template
from destination.paths import ROOT

BEFORE_TAGS = "2026-11-30T12:00:00Z"
"""While no release has a tag, the last commit before this time counts as the previous release."""


class Release:
    """The files of a release. Its functions have the packages of today's artifact."""

    def __init__(self, archive: bytes, folder: Path) -> None:
        self.folder = folder / "release"
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(self.folder, filter="data")
        self._function = folder / FUNCTION
        shutil.copytree(BUILT / FUNCTION, self._function)
        for name in OURS:
            shutil.rmtree(self._function / name)
            shutil.copytree(self.folder / name, self._function / name)

    def template(self) -> dict[str, Any]:
        """Return its template."""
        template = load_template(self.folder / "template.yaml")
        for resource in template["Resources"].values():
            if resource["Type"] == "AWS::Serverless::Function":
                resource["Properties"]["CodeUri"] = str(self._function)
        return template

    def create_key(self, stack: DeployedStack, customer: str) -> str:
        """Create an API key for a customer of a stack, with the command of this release."""
        package = "destination" if (self.folder / "destination").exists() else "cli"
        command = [sys.executable, "-m", package, "keys", "create", "--customer", customer, "--stack", stack.name]
        environment = stack.account.environment(stack.account.operator)
        made = subprocess.run([*command, "--json"], cwd=self.folder, env=environment, capture_output=True, check=True)
        return str(json.loads(made.stdout)["api_key"])


def previous_release(folder: Path) -> Release | None:
    """Unpack the previous release into a folder. Return None if the history is too short, as in a shallow clone."""
    commit = _git("describe", "--tags", "--match", "v*", "--abbrev=0", "HEAD^")
    commit = commit or _git("rev-list", "-1", f"--before={BEFORE_TAGS}", "HEAD")
    archive = commit and _git("archive", commit.decode().strip())
    return Release(archive, folder) if archive else None


def _git(*args: str) -> bytes:
    """Return the output of git, or an empty text if it failed or is not installed."""
    git = shutil.which("git")
    done = git and subprocess.run([git, *args], cwd=ROOT, capture_output=True, check=False)
    return done.stdout if done and done.returncode == 0 else b""
