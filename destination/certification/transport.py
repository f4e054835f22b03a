"""The points about the connection to the endpoint: its address, its identity, and its encryption."""

import socket
import ssl
import warnings
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from destination.certification.examination import Examination
from destination.certification.findings import ACCEPTING, CheckResult, NotCheckable, failed, passed, warned
from destination.certification.points import Point
from destination.segment.contract import CALL_TYPES

CERTIFICATE_WARNING = timedelta(days=21)
"""Warn if the certificate ends within this time; AWS renews certificates 60 days before."""
OLD_VERSIONS = (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1)
NOT_YOUR_OWN = (".execute-api.", ".lambda-url.", ".cloudfront.net.", ".ngrok.", ".ngrok-free.")
"""Parts of host names that belong to AWS or to a tunnel."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def _https(examination: Examination) -> CheckResult:
    url = urlsplit(examination.wire.url)
    if url.scheme == "https":
        return passed(f"{url.hostname} is called by HTTPS")
    if url.hostname in LOOPBACK:
        raise NotCheckable("this is a server on this machine without TLS: certify the deployed URL, or `serve --tls`")
    return failed("the URL begins with http://: the customers' data and keys could be read on the way")


def _reachable(examination: Examination) -> CheckResult:
    first = examination.first
    if first.reply is None:
        return failed(first.fault or "no answer", first)
    if first.is_no_route:
        return failed(
            f"it answers {first.came}: nothing accepts messages at {urlsplit(examination.wire.url).path}", first
        )
    is_taken = first.is_accepted or any(_is_taken(examination, call_type) for call_type in CALL_TYPES)
    if not is_taken and not first.is_redirect:
        return failed(f"it answers, and accepts no call type: {first.came}", first)
    return passed("it answers, by HTTP/1.1", first)


def _is_taken(examination: Examination, call_type: str) -> bool:
    try:
        return examination.call(call_type).is_accepted
    except NotCheckable:
        return False


def _redirect(examination: Examination) -> CheckResult:
    first = examination.first
    if first.reply is None:
        raise NotCheckable(f"the endpoint can't be reached ({first.fault})")
    if first.is_redirect:
        where = first.reply.headers.get("location", "nowhere")
        return failed(f"a message is answered {first.status}, to {examination.wire.masked(where)}", first)
    return passed("a message is answered without a redirect")


def _host(examination: Examination) -> CheckResult:
    host = urlsplit(examination.wire.url).hostname or ""
    if host in LOOPBACK:
        raise NotCheckable("this is a server on this machine: certify the URL that Segment gets")
    if any(part in f".{host}." for part in NOT_YOUR_OWN):
        return warned(f"{host} changes when its resource is created again, but customers' traffic depends on it")
    if _address(host):
        return warned(f"{host} is an address, which may change: give Segment a name")
    if "." not in host.rstrip("."):
        return warned(f"{host} is a name that only your own network knows")
    try:
        addresses = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError as error:
        raise NotCheckable(f"{host} leads nowhere from here: {error.strerror or error}") from error
    if not any(address.is_global for address in map(_address, addresses) if address):
        return warned(f"{host} leads to {', '.join(sorted(addresses))}, which Segment can't reach")
    return passed(f"{host} is a name of your own")


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _certificate(examination: Examination) -> CheckResult:
    try:
        with _connected(examination, _trusting(examination)) as connection:
            certificate = connection.getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        return failed(f"it is not trusted: {error.verify_message}")
    except OSError as error:
        return failed(f"no TLS connection can be made: {error.strerror or error}")
    ends_at = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)
    authority = "a private authority" if examination.wire.ca_file else "a public authority"
    says = f"it is trusted by {authority}, made for this host, and ends on {ends_at:%Y-%m-%d}"
    if examination.wire.ca_file and urlsplit(examination.wire.url).hostname not in LOOPBACK:
        return warned(f"{says}; Segment trusts public authorities only: certify it without --ca-file")
    return warned(says) if ends_at - datetime.now(UTC) < CERTIFICATE_WARNING else passed(says)


def _version(examination: Examination) -> CheckResult:
    try:
        with _connected(examination, _trusting(examination)) as connection:
            version = connection.version() or ""
    except OSError as error:
        raise NotCheckable(f"no TLS connection can be made: {error.strerror or error}") from error
    return passed(f"{version} was agreed on")  # OpenSSL offers no older version


def _old_versions(examination: Examination) -> CheckResult:
    """Offer only old versions; not checkable if this machine's OpenSSL can't offer them."""
    _target(examination)
    taken, refused, unasked = [], [], []
    for version in OLD_VERSIONS:
        context = _of_version(version)
        if not _can_ask(context):
            unasked.append(version.name)
            continue
        try:
            with _connected(examination, context):
                taken.append(version.name)
        except OSError:
            refused.append(version.name)
    if taken:
        return failed(f"it also speaks {' and '.join(taken)}")
    if unasked:
        raise NotCheckable(
            f"OpenSSL of this machine can't speak {' nor '.join(unasked)}: nmap --script ssl-enum-ciphers"
        )
    return passed(f"it refuses {' and '.join(refused)}")


def _target(examination: Examination) -> tuple[str, int]:
    """Return host and port; raises `NotCheckable` without TLS or without a server."""
    url = urlsplit(examination.wire.url)
    if url.scheme != "https":
        raise NotCheckable("the URL begins with http://")
    host, port = url.hostname or "", url.port or 443
    try:
        socket.create_connection((host, port), examination.wire.limit_seconds).close()
    except OSError as error:
        raise NotCheckable(f"the endpoint can't be reached ({error.strerror or error})") from error
    return host, port


def _connected(examination: Examination, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Return a TLS connection; raises `OSError`, and `NotCheckable` like `_target`."""
    host, port = _target(examination)
    connection = socket.create_connection((host, port), examination.wire.limit_seconds)
    try:
        return context.wrap_socket(connection, server_hostname=host)
    except BaseException:
        connection.close()
        raise


def _trusting(examination: Examination) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=examination.wire.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _of_version(version: ssl.TLSVersion) -> ssl.SSLContext:
    """Return a TLS context for one old version only; certificates don't matter here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # an old version is the purpose
        context.minimum_version = context.maximum_version = version
    return context


def _can_ask(context: ssl.SSLContext) -> bool:
    """Return whether OpenSSL can start a handshake with this context."""
    outgoing = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.pending > 0
    except ssl.SSLError:
        return False
    return False


REACHABLE = Point(
    id="transport.reachable",
    title="It answers messages",
    source=ACCEPTING,
    remedy="Check that the name resolves, that the port is open to the internet, and that the path is right.",
    check=_reachable,
)
"""Without it, no other point can be checked."""
POINTS = (
    Point(
        id="transport.https",
        title="The endpoint uses HTTPS",
        source=ACCEPTING,
        remedy="Give Segment a URL that begins with https://, and certify that.",
        check=_https,
    ),
    REACHABLE,
    Point(
        id="transport.certificate",
        title="Its certificate is valid for the host",
        source=f"inferred: {ACCEPTING}",
        remedy="Use a certificate of a public authority for this very name, with its whole chain, such as ACM's.",
        check=_certificate,
    ),
    Point(
        id="transport.tls",
        title="TLS 1.2 or newer is spoken",
        source=f"inferred: {ACCEPTING}",
        remedy="Choose the security policy TLS_1_2 for the domain.",
        check=_version,
    ),
    Point(
        id="transport.old-tls",
        title="TLS 1.0 and 1.1 are refused",
        source=f"inferred: {ACCEPTING}",
        remedy="Choose the security policy TLS_1_2 for the domain.",
        check=_old_versions,
    ),
    Point(
        id="transport.redirect",
        title="Messages are not redirected",
        source=f"inferred: {ACCEPTING} (a static endpoint)",
        remedy="Give Segment the URL that accepts messages.",
        check=_redirect,
    ),
    Point(
        id="transport.host",
        title="The URL can stay the same permanently",
        source=f"{ACCEPTING} (a static endpoint)",
        remedy="Use your own domain for the API (docs/how-to/deploy.md), and give its URL to Segment.",
        check=_host,
    ),
)
