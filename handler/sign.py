"""Sign requests to AWS with less work than botocore, and with the same result.

The signing key of a day and the host of a URL are computed once, and a dictionary collects the headers, in place of an
email message. `handler/clients.py` chooses this signer in Lambda.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import hmac
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from botocore.auth import AUTH_TYPE_MAPS, SIGNED_HEADERS_BLACKLIST, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

if TYPE_CHECKING:
    from botocore.client import BaseClient

SIGNATURE_VERSION = "v4-with-cached-key"


def sign_quickly(client: "BaseClient") -> None:
    """Let a client sign its requests by `QuickAuth`."""
    AUTH_TYPE_MAPS[SIGNATURE_VERSION] = QuickAuth
    choose: Any = lambda **_: SIGNATURE_VERSION  # noqa: E731 -- the stubs know no handler that returns something
    client.meta.events.register("choose-signer", choose)


class QuickAuth(SigV4Auth):
    """Signs one request, in which no header occurs twice."""

    def headers_to_sign(self, request: AWSRequest) -> Any:  # noqa: ANN401 -- a dictionary, unlike in botocore
        """Return the headers by their lower-case names."""
        named = ((name.lower(), value) for name, value in request.headers.items())
        headers = {name: value for name, value in named if name not in SIGNED_HEADERS_BLACKLIST}
        return {"host": _host(request.url), **headers}

    def canonical_headers(self, headers_to_sign: Any) -> str:  # noqa: ANN401
        """Return a line for each header, sorted by name."""
        return "\n".join(f"{name}:{' '.join(value.split())}" for name, value in sorted(headers_to_sign.items()))

    def signed_headers(self, headers_to_sign: Iterable[str]) -> str:
        """Return the sorted names of the headers."""
        return ";".join(sorted(headers_to_sign))

    def signature(self, string_to_sign: str, request: AWSRequest) -> str:
        """Return the signature in hexadecimal."""
        key = _signing_key(self.credentials.secret_key, self.credential_scope(request))
        return hmac.digest(key, string_to_sign.encode(), "sha256").hex()


@lru_cache(maxsize=8)
def _host(url: str) -> str:
    host: str = SigV4Auth(Credentials("", ""), "", "").headers_to_sign(AWSRequest(url=url))["host"]
    return host


@lru_cache(maxsize=8)
def _signing_key(secret: str, scope: str) -> bytes:
    """Return the key for a scope, such as `20200509/eu-west-1/dynamodb/aws4_request`."""
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
