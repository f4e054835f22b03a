"""Read addresses and host names: whether they belong to this machine, and the host in a `Host` header.

https://www.rfc-editor.org/rfc/rfc9110#section-7.2
"""

import ipaddress
import re
from ipaddress import IPv4Address, IPv6Address

LOCALHOST = "localhost"
"""The only name that always means this machine: no name server resolves it (RFC 6761)."""

MAX_HOST_CHARS = 260
"""A host name has at most 253 characters (https://www.rfc-editor.org/rfc/rfc1035), followed by the port."""
MAX_PORT = 65535

_HOST_HEADER = re.compile(r"(?:\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[0-9a-z._-]+))(?::(?P<port>[0-9]{1,5}))?")
_HOST_NAME = re.compile(r"[0-9a-z_-]{1,63}(?:\.[0-9a-z_-]{1,63})*")


def parse_host(header: str) -> str | None:
    """Return the host in a `Host` header in lower case, without port and brackets; None for an invalid value.

    This is stricter than RFC 3986, which allows user names, percent-encoding and almost any character in a host.
    """
    found = _HOST_HEADER.fullmatch(header.lower()) if len(header) <= MAX_HOST_CHARS else None
    if found is None or int(found["port"] or 0) > MAX_PORT:
        return None
    if found["address"] is not None:
        return found["address"] if isinstance(parse_address(found["address"]), IPv6Address) else None
    return found["name"]


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """Return an IP address, None for any other text; an IPv4 address that is mapped to IPv6 stays an IPv6 address."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def is_host_name(name: str) -> bool:
    """Return whether a text is a host name or an IP address, without port and brackets."""
    return _HOST_NAME.fullmatch(name.lower()) is not None or parse_address(name) is not None


def is_loopback(host: str) -> bool:
    """Return whether a host is `localhost`, or an address that only this machine can reach."""
    address = _plain(host)
    return host == LOCALHOST or (address is not None and address.is_loopback)


def is_same(host: str, other: str) -> bool:
    """Return whether two hosts are the same address or name."""
    address = _plain(host)
    return host == other or (address is not None and address == _plain(other))


def _plain(host: str) -> IPv4Address | IPv6Address | None:
    """Return an address; a dual-stack socket's `::ffff:127.0.0.1` becomes the IPv4 address."""
    address = parse_address(host)
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
