"""The environment of processes on this machine that play AWS or Lambda: built for them, not inherited.

Settings of the user's shell must neither break them nor lead their requests elsewhere. As in Lambda, a function gets
the variables of template.yaml and no other ones of the user.
"""

import os
from collections.abc import Mapping

from destination.deployment.clients import CA_VARIABLES

INHERITED = ("DYLD_LIBRARY_PATH", "HOME", "LD_LIBRARY_PATH", "PATH", "TMPDIR")
"""Variables that a Python interpreter may need to start, and where it finds programs and temporary files."""
FIXED = {
    # No such files, so that nothing of ~/.aws is read.
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    # No proxies of the operating system either.
    "NO_PROXY": "*",
    "no_proxy": "*",
    # As in Lambda, https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
    "LANG": "en_US.UTF-8",
    "PYTHONUTF8": "1",
    "TZ": ":UTC",
}


def local_environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the whole environment of a process that needs some variables.

    Where these name an endpoint with HTTPS, the user's certificate authorities are trusted.
    """
    variables = variables or {}
    is_https = variables.get("AWS_ENDPOINT_URL", "").startswith("https:")
    inherited = (*INHERITED, *(CA_VARIABLES if is_https else ()))
    return {**{name: os.environ[name] for name in inherited if name in os.environ}, **FIXED, **variables}
