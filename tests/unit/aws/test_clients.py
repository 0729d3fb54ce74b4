"""Clients of AWS: one attempt a call, one client however many ask, nothing left open."""

import asyncio
import socket
import subprocess
import sys
import warnings
from dataclasses import replace

import pytest
from botocore.exceptions import HTTPClientError

from bridge.aws.clients import LINGER_S, AwsClients
from bridge.aws.errors import AwsTroubleKind, trouble
from bridge.aws.http import _kept_alive
from bridge.core import limits
from bridge.core.connection import AwsConnection
from tests.http_stub import HALF, HANG, RESET, Answer, failed


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (failed(500, "InternalFailure"), AwsTroubleKind.SERVICE),
        (failed(503, "ServiceUnavailable"), AwsTroubleKind.SERVICE),
        (failed(400, "ProvisionedThroughputExceededException"), AwsTroubleKind.THROTTLED),
        (failed(429, "TooManyRequestsException"), AwsTroubleKind.THROTTLED),
        (failed(400, "ExpiredIteratorException"), AwsTroubleKind.EXPIRED_ITERATOR),
        (RESET, AwsTroubleKind.UNKNOWN_OUTCOME),
        (HALF, AwsTroubleKind.UNKNOWN_OUTCOME),
        (HANG, AwsTroubleKind.UNKNOWN_OUTCOME),
        (Answer(status=502, body=b"<html>"), AwsTroubleKind.SERVICE),
    ],
)
async def test_a_call_is_one_attempt_whatever_comes_back(stub, clients, connection, answer, kind):
    stub.answer = answer
    kinesis = await clients.client(connection, "kinesis", read_timeout_s=0.3 if answer is HANG else 60.0)

    with pytest.raises(Exception) as caught:
        await kinesis.list_streams()

    assert (kind, 1) == (trouble(caught.value).kind, len(stub.asked))


async def test_a_reset_on_a_connection_that_was_used_before_is_one_attempt_too(stub, clients, connection):
    kinesis = await clients.client(connection, "kinesis")
    stub.answers = [Answer(body=b'{"StreamNames": [], "HasMoreStreams": false}'), RESET]
    await kinesis.list_streams()

    with pytest.raises(Exception) as caught:
        await kinesis.list_streams()

    assert trouble(caught.value).kind is AwsTroubleKind.UNKNOWN_OUTCOME
    assert (2, 1) == (len(stub.asked), stub.connections)


async def test_nobody_there_is_unreachable(clients, unused_tcp_port):
    url = f"http://127.0.0.1:{unused_tcp_port}"
    gone = AwsConnection(name="x", region="eu-central-1", endpoint_url=url, access_key_id="A", secret_access_key="s")
    kinesis = await clients.client(gone, "kinesis")

    with pytest.raises(Exception) as caught:
        await kinesis.list_streams()

    found = trouble(caught.value)
    assert (AwsTroubleKind.UNREACHABLE, "EndpointConnectionError") == (found.kind, found.code)
    assert url in found.message


async def test_one_client_for_all_who_ask_at_once(clients, connection):
    same = AwsConnection(
        name="main",
        region="eu-central-1",
        endpoint_url=connection.endpoint_url,
        access_key_id="AKID",
        secret_access_key="secret",
    )

    made = await asyncio.gather(*(clients.client(which, "kinesis") for which in [connection, same] * 10))

    assert 1 == len({id(client) for client in made})
    assert made[0] is not await clients.client(connection, "kinesis", region="us-east-1")
    assert made[0] is not await clients.client(connection, "sqs")


async def test_a_service_has_an_endpoint_of_its_own_before_the_connections(stub, clients):
    connection = AwsConnection(
        name="x",
        region="eu-central-1",
        endpoint_url="http://127.0.0.1:1",
        endpoint_urls={"kinesis": stub.url + "/prefix"},
        access_key_id="A",
        secret_access_key="s",
    )
    stub.answer = Answer(body=b'{"StreamNames": [], "HasMoreStreams": false}')

    await (await clients.client(connection, "kinesis")).list_streams()

    assert ["/prefix"] == [asked.path.rstrip("/") for asked in stub.asked]


async def test_closed_without_a_warning_and_for_good(stub, clients, connection):
    stub.answer = Answer(body=b'{"StreamNames": [], "HasMoreStreams": false}')
    await (await clients.client(connection, "kinesis")).list_streams()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        await clients.close()
        await clients.close()

    with pytest.raises(RuntimeError):
        await clients.client(connection, "kinesis")


async def test_of_the_clients_of_roles_few_are_kept_and_the_others_closed_once_they_have_ended(
    stub, clients, connection, clock, monkeypatch
):
    monkeypatch.setattr(limits, "AWS_ROLE_CLIENTS_MAX", 2)
    stub.answer = Answer(body=b'{"StreamNames": [], "HasMoreStreams": false}')
    # Without a role of STS's: who it is does not matter here.
    one, two, three = (replace(connection, session_name=name, is_of_function=True) for name in ("aa", "bb", "cc"))
    plain = await clients.client(connection, "kinesis")
    first, second = await clients.client(one, "kinesis"), await clients.client(two, "kinesis")
    assert await clients.client(one, "kinesis") is first, "used last"
    await clients.client(three, "kinesis")
    assert await clients.client(one, "kinesis") is first

    await second.list_streams()  # a call that had begun is let end
    await clock.advance(LINGER_S + 1)
    await asyncio.sleep(0)
    with pytest.raises(HTTPClientError):
        await second.list_streams()
    assert await clients.client(two, "kinesis") is not second
    assert await clients.client(connection, "kinesis") is plain, "the file's own stay"
    await plain.list_streams()
    await clients.close()  # one is on its way out yet
    assert clients._leaving == {}


async def test_few_clients_of_roles_linger_where_many_take_turns(stub, clients, connection, monkeypatch):
    monkeypatch.setattr(limits, "AWS_ROLE_CLIENTS_MAX", 1)
    monkeypatch.setattr(limits, "AWS_ROLE_CLIENTS_LEAVING_MAX", 2)
    stub.answer = Answer(body=b'{"StreamNames": [], "HasMoreStreams": false}')
    roles = [replace(connection, session_name=f"r{number}", is_of_function=True) for number in range(5)]
    made = []
    for role in roles:
        made.append(await clients.client(role, "kinesis"))
        assert len(clients._leaving) <= 2
    for gone in made[:2]:
        with pytest.raises(HTTPClientError):
            await gone.list_streams()
    for open_yet in made[2:]:
        await open_yet.list_streams()
    await clients.close()
    assert clients._leaving == {}
    for gone in made:
        with pytest.raises(HTTPClientError):
            await gone.list_streams()


async def test_credentials_of_roles_outlive_their_clients_up_to_a_limit(clients, connection, monkeypatch):
    monkeypatch.setattr(limits, "AWS_ROLE_CLIENTS_MAX", 1)
    monkeypatch.setattr(limits, "AWS_ROLE_CREDENTIALS_MAX", 2)
    roles = [replace(connection, session_name=f"r{number}", is_of_function=True) for number in range(4)]
    await clients.client(connection, "kinesis")
    for role in roles[:3]:
        await clients.client(role, "kinesis")
    kept = dict(clients._credentials)
    assert set(kept) == {connection, *roles[:3]}
    await clients.client(roles[0], "kinesis")
    assert clients._credentials[roles[0]] is kept[roles[0]], "STS is not asked again"
    await clients.client(roles[3], "kinesis")
    assert set(clients._credentials) == {connection, roles[0], roles[2], roles[3]}, "the one that left first went"


def test_connections_are_kept_alive_below_what_nat_forgets():
    made = _kept_alive((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 0)))
    try:
        assert 1 == made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert 45 == made.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
    finally:
        made.close()


def test_nothing_of_aws_is_imported_before_it_is_asked_for():
    code = (
        "import sys, bridge.daemon.composition, bridge.aws.clients, bridge.aws.errors; "
        "print([name for name in sys.modules if name.split('.')[0] in ('aiobotocore', 'botocore', 'aiohttp')])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "[]" == done.stdout.strip()


async def test_a_call_waits_for_a_connection_of_the_pool(stub, connection):
    clients = AwsClients()
    gate = asyncio.Event()
    stub.answer = Answer(body=b'{"StreamNames": [], "HasMoreStreams": false}', wait=gate)
    kinesis = await clients.client(connection, "kinesis", pool=2)
    calls = [asyncio.ensure_future(kinesis.list_streams()) for _ in range(5)]
    try:
        async with asyncio.timeout(60):
            while len(stub.asked) < 2:
                await asyncio.sleep(0.01)
        gate.set()
        await asyncio.gather(*calls)
    finally:
        await clients.close()

    assert (5, 2) == (len(stub.asked), stub.connections)
