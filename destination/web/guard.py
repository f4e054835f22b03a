"""Protect a server on this machine: no web site may use it, neither through a browser nor through a host name.

A site that is open in a browser on this machine can send requests to every address that the machine can reach. It can
also let its own host name resolve to 127.0.0.1 (DNS rebinding). Browsers reveal that in three headers: `Host`, `Origin`
and `Sec-Fetch-Site`. Other clients send `Host` only.

A tunnel for Segment also uses a host name. Such a name must be allowed, and gives access to the API only: pages and
their actions are for this machine alone.

https://www.w3.org/TR/fetch-metadata/
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from destination.web.addresses import is_loopback, is_same, parse_host

FORWARDED_BY_PROXY = frozenset(
    {"cf-connecting-ip", "forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"}
)
"""Headers that a tunnel or a proxy adds. With one of them, the tunnel may have written a loopback `Host`."""
OWN_SITES = frozenset({"none", "same-origin"})
"""Values of `Sec-Fetch-Site` for requests of the user or of the page itself."""
SAFE_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
FORBIDDEN = 403


def refuse(_request: Request, reason: str) -> Response:
    """Return a 403 with its reason."""
    return JSONResponse({"message": reason}, status_code=FORBIDDEN)


@dataclass(frozen=True, kw_only=True)
class Guard:
    """An ASGI application that passes allowed requests to `app`, and answers all others 403.

    `public_paths` are open to every client that reaches the server by an address of this machine or by one of the
    `allowed_hosts`. All other paths are for this machine alone. `refuse` builds the response to a refused request.
    """

    app: ASGIApp
    refuse: Callable[[Request, str], Response] = refuse
    public_paths: Collection[str] = ()
    allowed_hosts: Collection[str] = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":  # there are no WebSockets here
            raise RuntimeError(f"{scope['type']} is not served here")
        reason = self._reason_to_refuse(scope)
        if reason is None:
            await self.app(scope, receive, send)
        else:
            response = self.refuse(Request(scope), reason)
            response.headers.update(SAFE_HEADERS)
            await response(scope, receive, send)

    def _reason_to_refuse(self, scope: Scope) -> str | None:
        """Return the reason to refuse a request, or None."""
        hosts = _values(scope, "host")
        host = parse_host(hosts[0]) if len(hosts) == 1 else None
        if host is None or not scope["raw_path"].startswith(b"/"):
            return "The request does not name one valid host"
        own_address = scope["server"][0]
        is_here = is_loopback(host) or is_same(host, own_address)
        if not is_here and host not in self.allowed_hosts:
            return (
                f"The host {host} is not allowed. If it is a tunnel of yours, start the server with --allow-host {host}"
                if self.public_paths
                else _private(scope)
            )
        if any(origin.lower() != f"{scope['scheme']}://{hosts[0].lower()}" for origin in _values(scope, "origin")):
            return "No other web site may use this server"
        if not OWN_SITES.issuperset(_values(scope, "sec-fetch-site")):
            return "No other web site may use this server. To open a page of it, type its address"
        if scope["path"] in self.public_paths:
            return None
        is_forwarded = any(name.decode("latin-1") in FORWARDED_BY_PROXY for name, _ in scope["headers"])
        client = scope["client"][0] if scope["client"] else ""
        is_from_here = is_loopback(client) or is_same(client, own_address)
        return None if is_here and is_from_here and not is_forwarded else _private(scope)


def _private(scope: Scope) -> str:
    address, port = scope["server"]
    url = f"{scope['scheme']}://{f'[{address}]' if ':' in address else address}:{port}/"
    return f"This is for this machine alone, without a tunnel or a proxy: open {url} on it"


def _values(scope: Scope, name: str) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name.encode()]
