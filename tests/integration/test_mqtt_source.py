"""The MQTT source at a real mosquitto: both versions, TLS, users, shared and overlapping filters, restarts, pressure."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import paho.mqtt.client as paho
import pytest
import pytest_asyncio

from bridge.core.errors import LaneFull, StoreFull
from bridge.events.mqtt import raw_event
from bridge.sources.push.mqtt import MqttSource, MqttSpec
from bridge.sources.push.mqtt_address import MqttAddress, MqttWill
from bridge.sources.push.mqtt_client import MqttConnection
from bridge.testing.mqtt import MemoryMqttSessions
from bridge.testing.push import MemoryIntake
from bridge.util.clocks import SystemClock
from tests.brokers.mosquitto import PASSWORD, USER, MosquittoBroker
from tests.harness import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


class Receiver:
    """A source with an intake in memory; may be ended and run anew on the same session."""

    def __init__(self, broker: MosquittoBroker, *topics: str, name: str = "s", **spec) -> None:
        address = spec.pop("address", MqttAddress(host="127.0.0.1", port=broker.port, session_expiry_s=600))
        self.broker = broker
        self.intake, self.sessions, self.letters = MemoryIntake(), MemoryMqttSessions(), []
        self.spec = MqttSpec(
            name=name, address=address, topics=topics or ("t/#",), shape=raw_event, function="f", **spec
        )
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> "Receiver":
        async def put(letter):
            if self.intake.refusal is not None:
                raise self.intake.refusal
            self.letters.append(letter)

        self.source = MqttSource(
            self.spec, intake=self.intake, put_letter=put, sessions=self.sessions, clock=SystemClock()
        )
        self.task = asyncio.create_task(self.source.run())
        return self

    async def ready(self) -> "Receiver":
        await self.start()
        before = self.broker.log().count("Sending SUBACK")
        await wait_until(
            lambda: self.sessions.sessions.get(self.spec.name) and self.sessions.sessions[self.spec.name].filters
        )
        await wait_until(lambda: self.source._connection is not None and not self.source.trouble)
        await asyncio.sleep(0.05)
        assert self.broker.log().count("Sending SUBACK") >= before
        return self

    async def drain(self) -> None:
        await self.source.drain()
        await self.task

    async def kill(self) -> None:
        """As a kill -9 would: nothing is said to the broker."""
        if self.task is not None and not self.task.done():
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    async def send(self, topic: str, *payloads, **how) -> None:
        await asyncio.to_thread(self.broker.publish, topic, *payloads, **how)

    async def got(self, count: int) -> list[str]:
        await wait_until(lambda: len(self.intake.stored) >= count, description=f"{count} messages are stored")
        return self.payloads()

    def payloads(self) -> list[str]:
        return [each.payload.decode() for each in self.intake.stored]

    @property
    def unacknowledged(self) -> int:
        log = self.broker.log()
        name = self.sessions.sessions[self.spec.name].client_id
        return log.count(f"Sending PUBLISH to {name} ") - log.count(f"Received PUBACK from {name} ")


@pytest_asyncio.fixture
async def receiver(mosquitto) -> AsyncIterator[Callable[..., Receiver]]:
    """Return `receiver(*topics, broker=…, **spec)`; what it made ends with the test."""
    made: list[Receiver] = []

    def make(*topics: str, broker: MosquittoBroker = mosquitto, **spec) -> Receiver:
        made.append(Receiver(broker, *topics, **spec))
        return made[-1]

    yield make
    for each in made:
        await each.kill()


@pytest.fixture(params=["5", "3.1.1"])
def address(request, mosquitto) -> MqttAddress:
    return MqttAddress(host="127.0.0.1", port=mosquitto.port, is_five=request.param == "5", session_expiry_s=600)


def numbers(begin: int, end: int) -> list[str]:
    return [f'{{"n":{n}}}' for n in range(begin, end)]


async def test_messages_come_in_order_with_their_topic_and_are_acknowledged(receiver, address):
    one = await receiver("plant/+/t", address=address).ready()
    await one.send("plant/7/t", *numbers(0, 500))
    await one.send("plant/x/y/t", "no")
    await one.send("$SYS/x", "no", qos=0)

    assert await one.got(500) == numbers(0, 500)
    assert {each.key for each in one.intake.stored} == {b"plant/7/t"}
    await wait_until(lambda: one.unacknowledged == 0)
    await one.drain()
    await wait_until(lambda: one.sessions.sessions["s"].client_id not in one.broker.clients())


async def test_a_stop_in_the_moment_of_being_let_in_acknowledges_what_came_with_it(receiver, address):
    one = await receiver(address=address).ready()
    await one.drain()
    await one.send("t/1", *numbers(0, 300))
    await one.start()
    let_in = one.source._inbox.connected

    def stop(*, session_present):
        let_in(session_present=session_present)
        one.source._stopping.set()

    one.source._inbox.connected = stop
    await one.task
    await one.start()
    await one.send("t/1", *numbers(300, 301))

    await wait_until(lambda: numbers(300, 301)[0] in one.payloads(), description="the last one is stored")
    assert one.payloads() == numbers(0, 301)


async def test_what_comes_while_we_are_away_is_kept_for_us(receiver, address):
    one = await receiver(address=address).ready()
    await one.drain()
    await one.send("t/1", *numbers(0, 2000))

    await one.start()

    assert await one.got(2000) == numbers(0, 2000)
    name = one.sessions.sessions["s"].client_id
    assert name.startswith("bridge-s-")
    assert one.broker.clients() == {name}


async def test_a_session_that_is_not_wanted_ends_with_the_connection(receiver, address):
    one = await receiver(address=replace(address, session_expiry_s=0)).ready()
    await one.drain()
    await one.send("t/1", "lost")

    await one.ready()
    await one.send("t/1", "kept")

    assert json.loads((await one.got(1))[0]) == {"data": "a2VwdA=="}


async def test_a_session_expires_after_its_seconds(receiver, mosquitto):
    one = await receiver(address=MqttAddress(host="127.0.0.1", port=mosquitto.port, session_expiry_s=1)).ready()
    await one.drain()
    await one.send("t/1", "1")
    await wait_until(lambda: "has expired" in mosquitto.log() or "Expiring client" in mosquitto.log())

    await one.ready()
    await one.send("t/1", "2")
    assert await one.got(1) == ["2"]


async def test_a_broker_that_restarts_loses_nothing_and_repeats_nothing_that_is_stored(receiver, address):
    one = await receiver(address=address).ready()
    one.intake.gate.clear()
    await one.send("t/1", *numbers(0, 20))
    await wait_until(lambda: one.intake.waiting == 20)

    await asyncio.to_thread(one.broker.stop)
    await wait_until(lambda: one.source.trouble)
    one.intake.gate.set()
    await asyncio.to_thread(one.broker.start)
    await wait_until(lambda: not one.source.trouble)
    await one.send("t/1", *numbers(20, 40))

    assert await one.got(40) == numbers(0, 40)
    await wait_until(lambda: one.unacknowledged <= 0 or "PUBACK" in one.broker.log_tail(3))
    assert len(one.intake.stored) == 40


async def test_what_was_not_acknowledged_comes_again_to_the_next_daemon(receiver, address):
    one = await receiver(address=address).ready()
    one.intake.gate.clear()
    await one.send("t/1", *numbers(0, 10))
    await wait_until(lambda: one.intake.waiting == 10)
    await one.kill()
    one.intake.gate.set()

    await one.start()

    assert await one.got(10) == numbers(0, 10)
    await wait_until(lambda: one.source._inbox.size_bytes == 0)


@pytest.mark.parametrize("topics", [("a/#", "a/b", "a/+"), ("a/+/c", "a/b/+"), ("#", "a/+/c", "+/b/c")])
async def test_overlapping_filters_bring_a_message_once(receiver, address, topics):
    one = await receiver(*topics, address=address).ready()
    await one.send("a/b/c", "1") if topics[0] != "a/#" else await one.send("a/b", "1")
    await one.send("z/z/z", "of none" if topics[0] != "#" else "2")
    await one.send("a/b/c" if topics[0] != "a/#" else "a/b", "3")

    expected = ["1", "2", "3"] if topics[0] == "#" else ["1", "3"]
    assert await one.got(len(expected)) == expected
    await wait_until(lambda: one.unacknowledged == 0)
    assert one.payloads() == expected


async def test_a_filter_that_is_asked_for_no_more_is_unsubscribed(receiver, address):
    one = await receiver("old/#", "kept/#", address=address).ready()
    await one.drain()
    one.spec = replace(one.spec, topics=("kept/#", "new/#"))
    await one.send("old/1", "1")

    await one.ready()
    for topic in ("old/1", "kept/1", "new/1"):
        await one.send(topic, f'"{topic}"')

    assert await one.got(2) == ['"kept/1"', '"new/1"']
    await wait_until(lambda: one.unacknowledged == 0)


async def test_a_group_shares_the_load(receiver, address):
    first = await receiver("$share/g/t/#", address=address, name="one").ready()
    second = await receiver("$share/g/t/#", address=address, name="two").ready()
    await first.send("t/1", *numbers(0, 100))

    await wait_until(lambda: len(first.intake.stored) + len(second.intake.stored) == 100)
    assert first.intake.stored
    assert second.intake.stored
    assert sorted(first.payloads() + second.payloads()) == sorted(numbers(0, 100))


async def test_tls_with_certificates(receiver, mosquitto):
    files = mosquitto.certificates
    secured = MqttAddress(host="127.0.0.1", port=mosquitto.ports[3], tls=True, ca=str(files.ca), session_expiry_s=60)
    without = await receiver(address=secured, name="without").start()
    unknown = await receiver(address=replace(secured, port=mosquitto.ports[2], ca=""), name="unknown").start()
    pair = {"cert": str(files.client_certificate), "key": str(files.client_key)}
    one = await receiver(address=replace(secured, **pair)).ready()

    await one.send("t/1", b"x" * 300_000, *[])
    await one.got(1)
    await wait_until(lambda: without.source.trouble and "certificate is not believed" in unknown.source.trouble)
    await wait_until(lambda: one.unacknowledged == 0)


async def test_users_and_passwords(receiver, mosquitto):
    asked = MqttAddress(
        host="127.0.0.1", port=mosquitto.ports[1], username=USER, password=PASSWORD, session_expiry_s=60
    )
    one = await receiver(address=asked).ready()
    wrong = await receiver(address=replace(asked, password="wrong"), name="wrong").start()
    older = await receiver(address=replace(asked, password="wrong", is_five=False), name="older").start()

    await wait_until(lambda: "not authorized" in wrong.source.trouble.lower() and older.source.trouble)
    assert one.source.trouble == ""
    assert "authorized" in older.source.trouble.lower()


async def test_nobody_there_is_told_and_tried_again(receiver, mosquitto):
    mosquitto.stop()
    one = await receiver().start()
    await wait_until(lambda: "nobody listens there" in one.source.trouble)

    await asyncio.to_thread(mosquitto.start)
    await wait_until(lambda: one.source.trouble == "")


async def test_a_broker_that_does_not_answer_is_left(receiver, mosquitto, monkeypatch):
    from bridge.core import limits

    monkeypatch.setattr(limits, "MQTT_ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        one = await receiver(address=MqttAddress(host="127.0.0.1", port=deaf.getsockname()[1])).start()
        await wait_until(lambda: "no answer" in one.source.trouble)
        await one.kill()


async def test_one_that_hangs_up_is_told_at_once(receiver, mosquitto):
    async def hang_up(reader, writer):
        await reader.read(100)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    address = MqttAddress(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
    one = await receiver(address=address).start()
    await wait_until(lambda: 'write version = "3.1.1"' in one.source.trouble)
    await one.kill()
    server.close()
    await server.wait_closed()


async def test_two_with_one_name_say_so(receiver, mosquitto):
    one = await receiver(client_id="same").ready()
    two = await receiver(client_id="same", name="other").ready()

    await wait_until(lambda: "does another client use the client_id same?" in one.source.trouble + two.source.trouble)


async def test_retained_messages_come_with_a_new_subscription_alone(receiver, address):
    one = receiver(address=address)
    await one.send("t/1", "1", arguments=["-r"])
    await one.ready()
    assert await one.got(1) == ["1"]

    await one.drain()
    await one.ready()
    await one.send("t/1", "2")
    assert await one.got(2) == ["1", "2"]

    unwanted = await receiver(address=address, name="unwanted", retained=False).ready()
    await unwanted.send("t/1", "3")
    assert await unwanted.got(1) == ["3"]


async def test_the_will_is_published_for_the_lost_and_not_for_those_who_say_goodbye(receiver, address):
    heard = await receiver("gone").ready()
    will = MqttWill("gone", b'"bye"', 1)
    polite = await receiver(address=replace(address, will=will), name="polite").ready()
    lost = await receiver(address=replace(address, will=will), name="lost").ready()

    await polite.drain()
    await lost.kill()

    assert await heard.got(1) == ['"bye"']


async def test_empty_binary_and_large_payloads(receiver, address):
    one = await receiver(address=address).ready()
    large = json.dumps({"x": "y" * 900_000})
    await one.send("t/1", "", qos=1)
    await one.send("t/1", b"\xff\x00")
    await one.send("t/" + "l" * 300, large)

    assert await one.got(3) == ['{"data":""}', '{"data":"/wA="}', large]
    assert one.intake.stored[2].key[:1] == b"\0"


async def test_oversized_messages_of_3_1_1_are_dead_letters_and_block_nothing(receiver, mosquitto):
    older = MqttAddress(host="127.0.0.1", port=mosquitto.port, is_five=False, session_expiry_s=60)
    one = await receiver(address=older, event_max_bytes=1000, payload_max_bytes=1000).ready()
    await one.send("t/1", b"x" * 2000)
    await one.send("t/2", b"x" * 5_000_000)
    await one.send("t/3", "3")

    assert await one.got(1) == ["3"]
    assert [json.loads(each.payload)["topic"] for each in one.letters] == ["t/1", "t/2"]
    assert all(len(each.payload) < 200 for each in one.letters)
    await wait_until(lambda: one.unacknowledged == 0)


async def test_oversized_messages_of_5_are_not_sent_to_us(receiver, mosquitto):
    one = await receiver(event_max_bytes=1000, payload_max_bytes=1000).ready()
    await one.send("t/1", b"x" * 5_000_000)
    await one.send("t/2", b"x" * 2000)
    await one.send("t/3", "3")

    assert await one.got(1) == ["3"]
    assert [json.loads(each.payload)["topic"] for each in one.letters] == ["t/2"]


@pytest.mark.parametrize("refusal", [StoreFull("no space"), LaneFull("full")])
async def test_a_full_store_holds_the_broker_back_and_nothing_is_lost(receiver, address, refusal):
    one = await receiver(address=address, buffer_max_bytes=100_000).ready()
    one.intake.refusal = refusal
    body = "y" * 4000
    await one.send("t/1", *[f'{{"n":{n},"x":"{body}"}}' for n in range(1000)])
    await wait_until(lambda: "wait to be stored" in one.source.trouble)
    assert one.source._inbox.size_bytes < 100_000 + 200_000
    assert one.payloads() == []
    assert "PUBACK from " + one.sessions.sessions["s"].client_id not in one.broker.log()

    one.intake.refusal = None

    await one.got(1000)
    assert [json.loads(each)["n"] for each in one.payloads()] == list(range(1000))
    await wait_until(lambda: one.unacknowledged == 0)
    assert one.source.trouble == ""


async def test_a_slow_store_bounds_what_is_in_memory(receiver, address):
    """Ten times the load: what does not fit stays at the broker, whose keep-alive is answered meanwhile."""
    one = await receiver(address=replace(address, keepalive_s=5), buffer_max_bytes=200_000).ready()
    one.intake.gate.clear()
    body = "y" * 20_000
    await one.send("t/1", *[f'{{"n":{n},"x":"{body}"}}' for n in range(300)])
    await wait_until(lambda: one.source._connection._paused)
    await asyncio.sleep(8)
    assert one.source._inbox.size_bytes < 500_000
    assert one.source.trouble == ""
    assert "exceeded timeout" not in one.broker.log()

    one.intake.gate.set()
    await one.got(300)
    assert [json.loads(each)["n"] for each in one.payloads()] == list(range(300))


async def test_a_flood_at_quality_0_is_taken_too(receiver, address):
    one = await receiver(address=address, qos=0).ready()
    await one.send("t/1", *numbers(0, 3000), qos=0)

    assert await one.got(3000) == numbers(0, 3000)


def test_what_is_used_of_paho_and_aiomqtt_is_there():
    """Private names: a new version may drop them, and then this says so before a user does."""
    import aiomqtt

    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    for name in ("_sock", "_sock_recv", "_sock_close", "_create_socket_connection", "_in_packet", "_packet_handle", "_packet_queue",
                 "_loop_rc_handle", "_last_bytes_received", "_ping_t", "connect_timeout", "manual_ack_set", "ack", "loop_misc"):  # fmt: skip
        assert hasattr(client, name), name
    for name in ("_misc_loop", "_client_connect", "_on_message", "_on_connect", "_on_socket_open", "_on_socket_close"):
        assert hasattr(aiomqtt.Client, name), name
    assert issubclass(MqttConnection, aiomqtt.Client)
