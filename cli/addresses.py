"""Which addresses and names are this machine's: what only those may use, a site that is open in a browser can't."""

import ipaddress


def is_here(host: str, own_host: str = "") -> bool:
    """Whether an address or a name is of this machine, and stays so; `own_host` is where a request arrived."""
    try:
        address = ipaddress.ip_address(host.removeprefix("::ffff:"))
    except ValueError:
        return host == "localhost"
    return address.is_loopback or address.is_unspecified or host == own_host
