"""Run pip in this environment with the user's settings for package indexes, and without any other settings of the user.

The Makefile runs it as `.venv/bin/python -I .ci/run_pip.py install …`. People need a mirror, a proxy or a certificate
authority to download packages. Other settings (`user`, `target`, `require-hashes`, …), in `PIP_*` variables or
in files such as ~/.config/pip/pip.conf, would install elsewhere or not at all.

https://pip.pypa.io/en/stable/topics/configuration/
"""

import os
import sys

from pip._internal.configuration import Configuration  # pip config list leaves out the file of PIP_CONFIG_FILE
from pip._internal.exceptions import ConfigurationError

SETTINGS = (
    "cache-dir",
    "cert",
    "client-cert",
    "default-timeout",
    "extra-index-url",
    "find-links",
    "index-url",
    "keyring-provider",
    "no-cache-dir",
    "no-index",
    "no-input",
    "proxy",
    "retries",
    "timeout",
    "trusted-host",
    "use-deprecated",  # such as legacy-certs
    "use-feature",  # such as truststore
)
"""Settings that say where packages come from, and how to reach them."""
SECTIONS = ("global", "install", ":env:")
"""Parts of pip's configuration that count for `pip install`; the later one wins."""


def pip_environment() -> dict[str, str]:
    """Return this process's environment with the wanted settings of pip only, from variables and files."""
    configuration = Configuration(isolated=False)
    configuration.load()
    values = dict(configuration.items())
    others = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    chosen = {
        f"PIP_{name.upper().replace('-', '_')}": str(values[f"{section}.{name}"])
        for section in SECTIONS
        for name in SETTINGS
        if values.get(f"{section}.{name}")
    }
    return {**others, **chosen, "PIP_CONFIG_FILE": os.devnull}


if __name__ == "__main__":
    try:
        environment = pip_environment()
    except ConfigurationError as error:
        sys.exit(f"ERROR: {error}")
    pip = (sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", *sys.argv[1:])
    os.execve(pip[0], pip, environment)  # noqa: S606 -- pip
