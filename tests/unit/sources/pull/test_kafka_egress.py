"""A Kafka client that is bound: addresses are resolved once, checked and pinned, those that a cluster advertises too."""

import asyncio
import contextlib
import socket
import ssl
import struct

import pytest
import pytest_asyncio
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError

from bridge.core.connection import KafkaConnection, KafkaTls
from bridge.core.egress import Egress, parse_allowed
from bridge.core.errors import ConfigError, SourceError
from bridge.sources.pull import kafka_egress
from bridge.sources.pull.kafka_client import client_arguments
from bridge.sources.pull.kafka_egress import EgressDenied, Unresolved, check_servers, permitted
from bridge.sources.pull.kafka_library import make_consumer, start_consumer
from tests.brokers.certificates import make_certificates

pytestmark = pytest.mark.asyncio


def egress(*allow):
    return Egress(tuple(map(parse_allowed, allow)))


def text(value):
    return struct.pack(">h", len(value)) + value.encode()


class Broker:
    """As much of a broker as says which brokers there are, in Kafka's protocol."""

    def __init__(self, advertised):
        self.advertised, self.connections = advertised, 0

    @contextlib.asynccontextmanager
    async def serving(self, tls=None):
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()

    async def _serve(self, reader, writer):
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                kind, _, correlation = struct.unpack(">hhi", (await reader.readexactly(size))[:8])
                body = struct.pack(">i", correlation) + (self._versions() if kind == 18 else self._metadata())
                writer.write(struct.pack(">i", len(body)) + body)
        writer.close()

    def _versions(self):
        return struct.pack(">hi", 0, 2) + struct.pack(">hhh", 3, 0, 0) + struct.pack(">hhh", 18, 0, 0)

    def _metadata(self):
        brokers = [struct.pack(">i", n) + text(host) + struct.pack(">i", port) for n, (host, port) in self.advertised]
        partition = struct.pack(">hii", 0, 0, 1) + struct.pack(">ii", 1, 1) * 2
        topic = struct.pack(">h", 0) + text("orders") + struct.pack(">i", 1) + partition
        return struct.pack(">i", len(brokers)) + b"".join(brokers) + struct.pack(">i", 1) + topic


def bound(server, *allow, tls=None):
    return KafkaConnection(name="", bootstrap_servers=(server,), egress=egress(*allow), tls=tls)


@pytest_asyncio.fixture
async def names(monkeypatch):
    """Names by hand, in the resolver of the running loop; returns what was asked."""
    known, asked, loop = {}, [], asyncio.get_running_loop()
    inner = loop.getaddrinfo

    async def resolve(host, port, **more):
        if host.endswith(".invalid"):  # whatever the resolver of this machine makes of it
            asked.append(host)
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if host not in known:
            return await inner(host, port, **more)
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in known[host]]

    monkeypatch.setattr(loop, "getaddrinfo", resolve)
    known["asked"] = asked
    return known


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "127.0.0.1", "localhost"])
async def test_however_loopback_is_written_it_is_denied(host):
    with pytest.raises(EgressDenied, match=r"is not allowed for callers of the API"):
        await permitted(egress("10.0.0.0/8"), host, 9092)


async def test_of_several_addresses_those_are_taken_that_are_allowed(names):
    names["many.test"] = ["169.254.169.254", "10.0.0.1", "10.0.0.1", "192.168.0.1"]
    assert await permitted(egress("10.0.0.0/8"), "many.test", 9092) == [(socket.AF_INET, "10.0.0.1")]
    with pytest.raises(EgressDenied, match="never connected to"):
        await permitted(egress("11.0.0.0/8"), "many.test", 9092)


async def test_a_name_that_is_not_resolved_passes_where_the_file_names_it(names):
    with pytest.raises(EgressDenied, match=r"none\.invalid:9092 is not resolved, and is not allowed"):
        await permitted(egress("10.0.0.0/8"), "none.invalid", 9092)
    await check_servers(egress("*.invalid"), ["none.invalid:9092"])
    with pytest.raises(ConfigError, match=r'^127\.0\.0\.1:1 is not allowed .* allow = \["127\.0\.0\.1:1"\]'):
        await check_servers(egress("*.invalid"), ["none.invalid:9092", "127.0.0.1:1"])


@pytest.mark.parametrize(
    ("host", "port"),
    [("127.0.0.1\0.corp.example", 9092), ("a b.corp.example", 1), ("ａ.corp.example", 1), ("", 1), ("x" * 300, 1),
     ("a.corp.example", 0), ("a.corp.example", 70_000), ("127.0.0.1", 70_000), ("a.corp.example", -1)],
)  # fmt: skip
async def test_what_is_no_host_or_port_is_denied_before_a_resolver_sees_it(host, port, monkeypatch):
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", None)
    with pytest.raises(EgressDenied, match=r"^'.*':-?[0-9]+ is no address of a broker$") as caught:
        await permitted(egress("*.corp.example", "0.0.0.0/0"), host, port)
    assert len(str(caught.value)) < 200


async def test_a_cluster_that_advertises_a_port_that_is_none_is_of_no_use():
    broker = Broker([(1, ("127.0.0.1", 70_000))])
    async with broker.serving() as port:
        connection = bound(f"127.0.0.1:{port}", "127.0.0.1")
        with pytest.raises(SourceError, match=r"'127\.0\.0\.1':70000 is no address of a broker"):
            await start_consumer(make_consumer(connection, group_id=None), connection, "orders")


@pytest.mark.parametrize("allow", [(), ("*.other.test", "10.0.0.0/8:9093", "db.internal:9093")])
async def test_a_name_that_nothing_could_allow_is_not_resolved(names, allow):
    names["db.internal"] = ["10.0.0.5"]
    said = set()
    for host in ("db.internal", "none.invalid"):
        with pytest.raises(EgressDenied) as caught:
            await permitted(egress(*allow), host, 9092)
        said.add(str(caught.value).replace(host, "HOST"))
    assert names["asked"] == []
    (told,) = said  # the same of both
    assert told == (
        "HOST:9092 is not allowed for callers of the API: the daemon's file needs "
        '[egress] allow = ["HOST:9092"], or a [connections.X] with these bootstrap_servers'
    )


async def test_the_addresses_of_a_name_are_not_told(names):
    names["db.internal"] = ["10.0.0.5"]
    with pytest.raises(ConfigError, match=r"^db\.internal:9092 is not allowed") as caught:
        await check_servers(egress("11.0.0.0/8"), ["db.internal:9092"])
    assert "10.0.0.5" not in str(caught.value)


async def test_few_names_are_resolved_at_once_and_those_given_up_count_until_they_end(monkeypatch):
    asked, gate = [], asyncio.Event()

    async def resolve(host, port, **_):
        asked.append(host)
        await gate.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    monkeypatch.setattr(kafka_egress, "RESOLVE_MAX_S", 0.01)
    slow = [permitted(egress("10.0.0.0/8"), f"{number}.test", 9092) for number in range(5)]
    assert {type(each) for each in await asyncio.gather(*slow, return_exceptions=True)} == {Unresolved}
    with pytest.raises(Unresolved, match="is not resolved"):
        await permitted(egress("10.0.0.0/8"), "later.test", 9092)
    assert asked == ["0.test", "1.test"]
    assert await permitted(egress("10.0.0.0/8"), "10.0.0.2", 1) == [(socket.AF_INET, "10.0.0.2")], "not resolved at all"

    monkeypatch.setattr(kafka_egress, "RESOLVE_MAX_S", 60.0)
    gate.set()
    quick = [permitted(egress("10.0.0.0/8"), f"{number}.test", 9092) for number in range(5)]
    assert await asyncio.gather(*quick) == [[(socket.AF_INET, "10.0.0.1")]] * 5


async def test_a_broker_whose_name_is_not_resolved_does_not_stop_the_others(names, monkeypatch):
    monkeypatch.setattr("random.shuffle", lambda _hosts: None)  # the name is tried first
    broker = Broker([])
    async with broker.serving() as port:
        broker.advertised.append((1, ("127.0.0.1", port)))
        servers = (f"none.invalid:{port}", f"127.0.0.1:{port}")
        connection = KafkaConnection(name="", bootstrap_servers=servers, egress=egress("127.0.0.0/8"))
        consumer = make_consumer(connection, group_id=None)
        assert await start_consumer(consumer, connection, "orders") == [0]
        consumer.check_egress()
        await consumer.shut()
    assert names["asked"] == ["none.invalid"]


async def test_a_named_broker_that_is_not_allowed_is_not_connected_to():
    broker = Broker([])
    async with broker.serving() as port:
        connection = bound(f"127.0.0.1:{port}")
        with pytest.raises(SourceError, match=rf"127\.0\.0\.1:{port} is not allowed for callers of the API"):
            await start_consumer(make_consumer(connection, group_id=None), connection, "orders")
    assert broker.connections == 0


async def test_a_broker_that_a_cluster_advertises_is_checked_as_well():
    broker = Broker([(1, ("169.254.169.254", 80))])
    async with broker.serving() as port:
        connection = bound(f"127.0.0.1:{port}", "127.0.0.1")
        with pytest.raises(SourceError, match=r"169\.254\.169\.254:80 is link-local, metadata"):
            await start_consumer(make_consumer(connection, group_id=None), connection, "orders")
    assert broker.connections == 1


async def test_a_connection_goes_to_the_address_that_was_checked(names):
    broker = Broker([])
    async with broker.serving() as port:
        names["kafka.test"] = ["127.0.0.1"]
        client = AIOKafkaClient(**client_arguments(bound(f"kafka.test:{port}", "127.0.0.1")))
        await client.bootstrap()
        await client.close()
    assert (broker.connections, names["asked"]) == (1, ["kafka.test"]), "asked once"


async def test_the_certificate_is_still_the_names(names, tmp_path):
    files = make_certificates(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(files.broker)
    broker = Broker([])
    async with broker.serving(tls) as port:
        names["other.test"] = ["127.0.0.1"]
        for host, is_taken in (("localhost", True), ("other.test", False)):
            connection = bound(f"{host}:{port}", "127.0.0.1", tls=KafkaTls(ca=str(files.ca)))
            client = AIOKafkaClient(**client_arguments(connection))
            try:
                if is_taken:
                    await client.bootstrap()
                else:
                    with pytest.raises(KafkaConnectionError):
                        await client.bootstrap()
            finally:
                await client.close()


async def test_clients_of_the_file_are_not_bound():
    broker = Broker([])
    async with broker.serving() as port:
        kafka_egress.bind("one", egress())
        connection = KafkaConnection(name="main", bootstrap_servers=(f"127.0.0.1:{port}",))
        client = AIOKafkaClient(**client_arguments(connection))
        await client.bootstrap()
        await client.close()
    assert broker.connections == 1
