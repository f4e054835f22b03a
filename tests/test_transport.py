"""Test how requests reach a store inside Lambda: like botocore's own session, with few connections."""

import json
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Barrier, Event

import boto3
import pytest
import trustme
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ReadTimeoutError,
    SSLError,
)
from botocore.parsers import ResponseParserError
from endpoint import Endpoint, endpoint, response

from destination.deployment.clients import LOCAL_CREDENTIALS, LOCAL_REGION
from handler.clients import connect
from handler.parallel import run_concurrently
from handler.transport import Connections

pytest_plugins = ["servers"]

MAX_WAIT_SECONDS = 30
SHORT_SECONDS = 0.5
HOST = "localhost"
OK = response(200, '{"Item": {}}')
NOWHERE = "http://127.0.0.1:1"
"""Nobody listens at this port."""


@contextmanager
def listening(answer) -> Iterator[Endpoint]:
    """Run an endpoint, and close its connections at the end."""
    with endpoint(answer) as server:
        yield server
        for received in server.received:
            with suppress(OSError):  # it has ended before
                received.connection.shutdown(socket.SHUT_RDWR)


def answers(*pieces):
    """Return a function that answers the first request with the first piece, and so on. Later requests get OK."""
    return lambda request: pieces[request.number - 1] if request.number <= len(pieces) else OK


def connections(server):
    """Return how many connections the requests used."""
    return len({id(received.connection) for received in server.received})


@pytest.fixture
def connection():
    """Return a function that makes `Connections`. At the end, close the idle connections."""
    made = []

    def connection(*, connect_timeout=MAX_WAIT_SECONDS, read_timeout=MAX_WAIT_SECONDS, roots=()):
        made.append(Connections(connect_timeout=connect_timeout, read_timeout=read_timeout, roots=roots))
        return made[-1]

    yield connection
    for each in made:
        with pytest.raises(EndpointConnectionError):
            each(post(NOWHERE))


def post(url, body=b"{}", **headers):
    return AWSRequest(method="POST", url=url, data=body, headers=headers).prepare()


@contextmanager
def client(service, url, *events, tries=1):
    config = Config(
        connect_timeout=MAX_WAIT_SECONDS,
        read_timeout=MAX_WAIT_SECONDS,
        retries={"mode": "standard", "total_max_attempts": tries},
    )
    client = boto3.client(service, endpoint_url=url, region_name=LOCAL_REGION, config=config, **LOCAL_CREDENTIALS)
    for handler in events:
        client.meta.events.register("before-send", handler)
    yield client
    client.close()


# Same results as botocore


def put_item(client, table="events"):
    return client.put_item(
        TableName=table, Item={"id": {"S": "é"}}, ReturnValues="ALL_OLD", ReturnConsumedCapacity="TOTAL"
    )


def put_item_nowhere(client):
    with pytest.raises(ClientError) as caught:
        put_item(client, "missing")
    return caught.value.response


def send_message(client):
    return client.send_message(QueueUrl=client.create_queue(QueueName="events")["QueueUrl"], MessageBody="é")


def send_message_nowhere(client):
    with pytest.raises(ClientError) as caught:
        client.send_message(QueueUrl=f"{client.meta.endpoint_url}/0/missing", MessageBody="é")
    return caught.value.response


@pytest.fixture(scope="module")
def stores(other_aws):
    with client("dynamodb", other_aws.url) as dynamodb:
        dynamodb.create_table(
            TableName="events",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        put_item(dynamodb)
    return other_aws.url


UNIQUE = {"date", "x-amz-id-2", "x-amz-request-id", "x-amzn-requestid", "RequestId", "MessageId"}


def without_unique(answer):
    """Remove the parts that differ in every answer."""
    if not isinstance(answer, dict):
        return answer
    return {name: without_unique(value) for name, value in answer.items() if name not in UNIQUE}


CALLS = [
    ("dynamodb", put_item),
    ("dynamodb", put_item_nowhere),
    ("sqs", send_message),
    ("sqs", send_message_nowhere),
]


@pytest.mark.parametrize(("service", "call"), CALLS)
def test_answer_equals_botocores(stores, connection, service, call):
    with client(service, stores) as stock, client(service, stores, connection()) as direct:
        assert without_unique(call(direct)) == without_unique(call(stock))


@pytest.mark.parametrize(("service", "call"), CALLS)
def test_status_headers_and_body_equal_botocores(stores, connection, service, call):
    def read(client):
        """Return the last answer."""
        answers = []
        client.meta.events.register("before-parse", lambda response_dict, **_: answers.append(response_dict))
        call(client)
        headers = {name.lower(): value for name, value in answers[-1]["headers"].items()}
        body = json.loads(answers[-1]["body"])
        return answers[-1]["status_code"], without_unique(headers), without_unique(body)

    with client(service, stores) as stock, client(service, stores, connection()) as direct:
        assert read(direct) == read(stock)


def test_request_equals_botocores(connection):
    with listening(answers()) as server:
        url = server.url.removesuffix("/segment")
        with client("dynamodb", url) as stock, client("dynamodb", url, connection()) as direct:
            put_item(stock)
            put_item(direct)
    heads = [received.head.splitlines() for received in server.received]
    unique = ("X-Amz-Date: ", "Authorization: ", "amz-sdk-invocation-id: ")
    stock, direct = ([line for line in head if not line.startswith(unique)] for head in heads)
    assert direct[0] == stock[0] == "POST / HTTP/1.1"
    assert sorted(direct) == sorted(stock)
    assert [len(head) for head in heads] == [len(stock) + 3] * 2
    assert server.received[0].body == server.received[1].body


@pytest.mark.parametrize(("path", "sent"), [("", "/"), ("/", "/"), ("/a%20b/c", "/a%20b/c")], ids=repr)
def test_the_path_is_sent(connection, path, sent):
    with listening(answers()) as server:
        connection()(post(server.url.removesuffix("/segment") + path))
    assert server.received[0].head.startswith(f"POST {sent} HTTP/1.1\r\n")


def test_a_header_may_be_bytes(connection):
    with listening(answers()) as server:
        connection()(post(server.url, **{"X-Amz-Target": b"DynamoDB_20120810.PutItem"}))
    assert "\r\nX-Amz-Target: DynamoDB_20120810.PutItem\r\n" in server.received[0].head


@pytest.mark.parametrize(
    ("body", "sent"), [("{}", b"{}"), (b"\xff", b"\xff"), (bytearray(b"{}"), b"{}"), (b"", b"")], ids=repr
)
def test_a_body_is_text_or_bytes(connection, body, sent):
    with listening(answers()) as server:
        connection()(post(server.url, body))
    assert server.received[0].body == sent


def test_text_is_sent_as_utf_8(connection):
    with listening(answers()) as server:
        connection()(post(server.url, "é", **{"Content-Length": "2"}))
    assert server.received[0].body == "é".encode()


def test_store_error_is_returned_as_an_answer(connection):
    with listening(answers(response(503, "Oops", "X-Reason: Busy"))) as server:
        answer = connection()(post(server.url))
    assert (answer.status_code, answer.headers["x-reason"], answer.content) == (503, "Busy", b"Oops")


def test_header_names_may_have_any_case_and_repeat(connection):
    with listening(answers(response(200, "{}", "X-KIND:a", "x-kind: \t b "))) as server:
        assert connection()(post(server.url)).headers["X-Kind"] == "a, b"


@pytest.mark.parametrize("reason", [" OK", " Not what one thinks", " ", ""], ids=repr)
def test_reason_phrase_is_ignored(connection, reason):
    with listening(answers([f"HTTP/1.1 200{reason}\r\nContent-Length: 2\r\n\r\n{{}}".encode()])) as server:
        assert connection()(post(server.url)).status_code == 200


# One connection


def test_connection_is_reused(connection):
    with listening(answers()) as server:
        send = connection()
        contents = [send(post(server.url)).content for _ in range(3)]
    assert contents == [b'{"Item": {}}'] * 3
    assert connections(server) == 1


def test_idle_connection_is_reused_only_for_its_host(connection):
    with listening(answers()) as here, listening(answers()) as there:
        send = connection()
        for server in (here, there, here):
            send(post(server.url))
        assert (len(here.received), len(there.received)) == (2, 1)


def test_connection_closed_meanwhile_is_replaced(connection):
    closed = Event()

    def answer_and_close(request):
        yield from OK
        if request.number == 1:
            request.connection.shutdown(socket.SHUT_RDWR)
            closed.set()

    with listening(answer_and_close) as server:
        send = connection()
        send(post(server.url))
        assert closed.wait(MAX_WAIT_SECONDS)
        assert send(post(server.url)).status_code == 200
    assert (len(server.received), connections(server)) == (2, 2)


@pytest.mark.parametrize(
    "last",
    [
        response(200, "{}", "Connection: close"),
        response(200, "{}", "connection: Close"),
        [b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}"],
    ],
)
def test_answer_that_closes_ends_the_connection(connection, last):
    with listening(answers(last)) as server:
        send = connection()
        contents = [send(post(server.url)).content for _ in range(3)]
    assert contents == [b"{}", b'{"Item": {}}', b'{"Item": {}}']
    assert connections(server) == 2


@pytest.mark.parametrize("more", [response(500)[0], b"x" * 100_000], ids=["an answer", "much"])
def test_bytes_after_an_answer_are_not_the_next_answer(connection, more):
    with listening(answers([OK[0] + more])) as server:
        send = connection()
        assert [send(post(server.url)).status_code for _ in range(2)] == [200, 200]
    assert connections(server) == 2


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_answer_may_arrive_byte_by_byte(connection):
    with listening(answers([bytes([octet]) for octet in OK[0]])) as server:
        assert connection()(post(server.url)).content == b'{"Item": {}}'


# Errors equal botocore's, and the next request uses a new connection


@contextmanager
def soon():
    began = time.monotonic()
    try:
        yield
    finally:
        assert time.monotonic() - began < MAX_WAIT_SECONDS / 2


def assert_works(send, server):
    """Send a request that must succeed."""
    before = {id(received.connection) for received in server.received}
    assert send(post(server.url)).content == b'{"Item": {}}'
    assert id(server.received[-1].connection) not in before


def test_a_host_that_refuses_cannot_be_reached(connection):
    send = connection()
    with pytest.raises(EndpointConnectionError, match="Could not connect"):
        send(post(NOWHERE))
    with listening(answers()) as server:
        assert_works(send, server)


def test_a_host_without_an_address_cannot_be_reached(connection):
    with pytest.raises(EndpointConnectionError):
        connection()(post("http://store.invalid/"))


def test_host_that_accepts_no_connection_times_out(connection):
    send = connection(connect_timeout=SHORT_SECONDS)
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as full,
        socket.create_connection(full.getsockname()),
        pytest.raises(ConnectTimeoutError),
        soon(),
    ):
        send(post(f"http://127.0.0.1:{full.getsockname()[1]}/"))
    with listening(answers()) as server:
        assert_works(send, server)


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200", OK[0][:-1]], ids=repr)
def test_hanging_answer_times_out(connection, begun):
    over = Event()

    def hang(request):
        yield begun
        if request.number == 1:
            over.wait(MAX_WAIT_SECONDS)

    with listening(lambda request: hang(request) if request.number == 1 else OK) as server:
        send = connection(read_timeout=SHORT_SECONDS)
        with pytest.raises(ReadTimeoutError), soon():
            send(post(server.url))
        assert_works(send, server)
        over.set()


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"HTTP/1.1", id="the status line is cut"),
        pytest.param(HEAD + b"Content-Le", id="the head is cut"),
        pytest.param(OK[0][:-1], id="the body is too short"),
        pytest.param(CHUNKED + b"2\r\n{}\r\n0\r\n\r\n", id="chunks, which no store sends"),
        pytest.param(HEAD + b"Content-Length: -1\r\n\r\n{}", id="a length below zero"),
        pytest.param(HEAD + b"Age: 1\r\n" * 200_000, id="a head without end"),
        pytest.param(HEAD + b"\r\n{}", id="no length"),
        pytest.param(HEAD + b"Content-Length: two\r\n\r\n{}", id="the length is no number"),
        pytest.param(HEAD + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n{}", id="the length fits nowhere"),
        pytest.param(HEAD + b"Content-Length: " + b"9" * 16 + b"\r\n\r\n{}", id="the length is more than there is"),
        pytest.param(b"HTTP/1.1 OK\r\nContent-Length: 2\r\n\r\n{}", id="no status"),
        pytest.param(b"\x15\x03\x01\x00\x02\x02\x46", id="TLS"),
        pytest.param(b"SSH-2.0-OpenSSH_9.7\r\n", id="SSH"),
        pytest.param(b"{} 200 OK\r\nContent-Length: 2\r\n\r\n{}", id="no HTTP"),
        pytest.param(b"HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\n{}", id="no HTTP/1"),
    ],
)
def test_invalid_answer_counts_as_a_closed_connection(connection, octets):
    def answer_and_close(request):
        request.connection.sendall(octets)
        return []

    with listening(lambda request: answer_and_close(request) if request.number == 1 else OK) as server:
        send = connection()
        with pytest.raises(ConnectionClosedError):
            send(post(server.url))
        assert_works(send, server)


def reset(request):
    """End a connection with RST."""
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.connection.close()
    return []


def test_connection_reset_is_reported_as_closed(connection):
    with listening(lambda request: reset(request) if request.number == 1 else OK) as server:
        send = connection()
        with pytest.raises(ConnectionClosedError):
            send(post(server.url))
        assert_works(send, server)


def test_error_names_the_endpoint(connection):
    with listening(answers([])) as server, pytest.raises(ConnectionClosedError, match=server.url):
        connection()(post(server.url))


# TLS


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


def roots(folder, *authorities):
    """Write the certificates of each authority into a file."""
    paths = [folder / f"roots-{number}.pem" for number in range(len(authorities))]
    for path, authority in zip(paths, authorities, strict=True):
        authority.cert_pem.write_to_path(path)
    return tuple(str(path) for path in paths)


@contextmanager
def listening_tls(authority, answer, *, name=HOST):
    with listening(answer) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.url = server.url.replace("http://127.0.0.1", f"https://{HOST}")
        yield server


def test_host_is_trusted_by_its_root(connection, authority, tmp_path):
    with listening_tls(authority, answers()) as server:
        send = connection(roots=roots(tmp_path, authority))
        assert [send(post(server.url)).content for _ in range(2)] == [b'{"Item": {}}'] * 2
    assert connections(server) == 1


def test_more_roots_are_read_if_the_first_do_not_suffice(connection, authority, tmp_path):
    with listening_tls(authority, answers()) as server:
        assert connection(roots=roots(tmp_path, trustme.CA(), authority))(post(server.url)).status_code == 200


def test_more_roots_are_not_read_if_the_first_suffice(connection, authority, tmp_path):
    first = roots(tmp_path, authority)
    with listening_tls(authority, answers()) as server:
        assert connection(roots=(*first, str(tmp_path / "missing")))(post(server.url)).status_code == 200


def test_insufficient_roots_are_not_read_again(connection, authority, tmp_path):
    first, second = roots(tmp_path, trustme.CA(), authority)
    with listening_tls(authority, answers(response(200, "{}", "Connection: close"))) as server:
        send = connection(roots=(first, second))
        send(post(server.url))
        Path(first).unlink()
        assert_works(send, server)


def test_host_cannot_be_reached_without_a_file_of_roots(connection, authority, tmp_path):
    with listening_tls(authority, answers()) as server, pytest.raises(EndpointConnectionError):
        connection(roots=[str(tmp_path / "missing")])(post(server.url))


def test_host_without_a_known_root_is_not_trusted(connection, authority, tmp_path):
    with listening_tls(authority, answers()) as server:
        send = connection(roots=roots(tmp_path, trustme.CA(), trustme.CA()))
        with pytest.raises(SSLError, match="CERTIFICATE_VERIFY_FAILED"):
            send(post(server.url))
    assert not server.received


def test_host_with_another_name_is_not_trusted(connection, authority, tmp_path):
    with listening_tls(authority, answers(), name="other.example") as server:
        send = connection(roots=roots(tmp_path, authority))
        with pytest.raises(SSLError, match="Hostname mismatch"):
            send(post(server.url))
    assert not server.received


def test_a_host_without_tls_is_not_trusted(connection, authority, tmp_path):
    send = connection(roots=roots(tmp_path, authority))

    def answer_in_plain():
        accepted, _ = plain.accept()
        with accepted:
            accepted.recv(65536)
            accepted.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as plain, ThreadPoolExecutor(1) as executor:
        executor.submit(answer_in_plain)
        with pytest.raises(SSLError):
            send(post(f"https://{HOST}:{plain.getsockname()[1]}/"))


def test_a_host_that_hangs_in_the_handshake_takes_no_connection(connection, authority, tmp_path):
    send = connection(connect_timeout=SHORT_SECONDS, roots=roots(tmp_path, authority))
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(ConnectTimeoutError), soon():
        send(post(f"https://{HOST}:{silent.getsockname()[1]}/"))


# Clients


def test_botocore_retries(connection):
    with listening(answers([])) as server, client("dynamodb", server.url, connection(), tries=2) as dynamodb:
        assert put_item(dynamodb)["ResponseMetadata"]["RetryAttempts"] == 1
    assert (len(server.received), connections(server)) == (2, 2)


def test_botocore_stops_retrying(connection):
    with (
        listening(lambda _: []) as server,
        client("dynamodb", server.url, connection(), tries=2) as dynamodb,
        pytest.raises(ConnectionClosedError),
    ):
        put_item(dynamodb)
    assert len(server.received) == 2


@pytest.fixture
def environment(monkeypatch):
    """Return a function that sets the URL of DynamoDB and other variables."""

    def environment(url, **variables):
        for name in ("http_proxy", "https_proxy", "no_proxy", "aws_ca_bundle"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)
        variables = {**LOCAL_CREDENTIALS, "aws_default_region": LOCAL_REGION, **variables}
        for name, value in {**variables, "aws_endpoint_url_dynamodb": url}.items():
            monkeypatch.setenv(name.upper(), value)

    return environment


LAST = response(200, '{"ConsumedCapacity": {}}', "Connection: close")


def cut_at_first(request):
    """Answer the first request with a body that ends too early. botocore's own session accepts such a body."""
    if request.number > 1:
        return LAST
    request.connection.sendall(LAST[0][:-1])
    return []


def test_direct_client_uses_our_connections(environment):
    with listening(cut_at_first) as server:
        environment(server.url)
        answer = put_item(connect("dynamodb", direct=True))
    assert answer["ResponseMetadata"]["RetryAttempts"] == 1


def test_other_clients_use_botocores_connections(environment):
    with listening(cut_at_first) as server:
        environment(server.url)
        dynamodb = connect("dynamodb")
        with pytest.raises(ResponseParserError):
            put_item(dynamodb)
        dynamodb.close()


def test_direct_client_uses_a_proxy(environment):
    with listening(lambda _: LAST) as proxy:
        environment("http://store.example/", http_proxy=proxy.url)
        dynamodb = connect("dynamodb", direct=True)
        put_item(dynamodb)
        dynamodb.close()
    assert proxy.received[0].head.startswith("POST http://store.example/ HTTP/1.1\r\n")


def test_direct_client_trusts_the_roots_of_botocore(environment, authority):
    with listening_tls(authority, lambda _: LAST) as server:
        environment(server.url)
        with pytest.raises(SSLError):
            put_item(connect("dynamodb", direct=True))
    assert not server.received


def test_direct_client_trusts_a_configured_bundle(environment, authority, tmp_path):
    [path] = roots(tmp_path, authority)
    with listening_tls(authority, lambda _: LAST) as server:
        environment(server.url)
        put_item(connect("dynamodb", direct=True, ca_bundle=path))
    assert len(server.received) == 1


# Threads


def test_each_thread_has_its_own_reused_connection(connection):
    together = Barrier(4, timeout=MAX_WAIT_SECONDS)

    def answer(_request):
        together.wait()
        return OK

    with listening(answer) as server:
        transport = connection()
        for _ in range(2):
            run_concurrently(lambda _: transport(post(server.url)), range(4))
        assert len(server.received) == 8
        assert connections(server) == 4


def test_idle_connections_are_closed_when_one_has_died(connection):
    together = Barrier(4, timeout=MAX_WAIT_SECONDS)
    ended = set()

    def answer(received):
        if received.number <= 4:
            together.wait()
            ended.add(received.connection)
            return OK
        return [] if received.connection in ended else OK

    with listening(answer) as server:
        transport = connection()
        run_concurrently(lambda _: transport(post(server.url)), range(4))
        with pytest.raises(ConnectionClosedError):
            transport(post(server.url))
        assert transport(post(server.url)).status_code == 200
