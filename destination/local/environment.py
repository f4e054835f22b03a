"""Build the environment of processes on this machine that act as AWS or Lambda, instead of inheriting it.

Settings of the user's shell must neither break them nor redirect their requests. As in Lambda, a function gets the
variables of template.yaml and no other variables of the user.
"""

import os
from collections.abc import Mapping

from destination.deployment.clients import CA_VARIABLES

INHERITED = ("DYLD_LIBRARY_PATH", "HOME", "LD_LIBRARY_PATH", "PATH", "TMPDIR")
"""Variables that a Python interpreter may need to start, and to find programs and temporary files."""
FIXED = {
    # Files that don't exist, so that nothing in ~/.aws is read.
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    # Disables the operating system's proxies too.
    "NO_PROXY": "*",
    "no_proxy": "*",
    # As in Lambda, https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
    "LANG": "en_US.UTF-8",
    "PYTHONUTF8": "1",
    "TZ": ":UTC",
}


def local_environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the whole environment of a process that needs some variables.

    If these contain an endpoint with HTTPS, the user's certificate authorities are trusted.
    """
    variables = variables or {}
    is_https = variables.get("AWS_ENDPOINT_URL", "").startswith("https:")
    inherited = (*INHERITED, *(CA_VARIABLES if is_https else ()))
    return {**{name: os.environ[name] for name in inherited if name in os.environ}, **FIXED, **variables}
