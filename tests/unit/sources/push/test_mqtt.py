"""The MQTT source between a scripted broker and an intake, on virtual time: sessions, back-off, filters, the end."""

import asyncio
import json
from dataclasses import replace

import pytest

from bridge.core.errors import StoreFull
from bridge.core.mqtt import MqttSession
from bridge.events.mqtt import Message, raw_event
from bridge.sources.push.mqtt import MqttSource, MqttSpec, _identifier
from bridge.sources.push.mqtt_address import MqttAddress, MqttTrouble, Oversized
from bridge.testing.clock import ManualClock, settle
from bridge.testing.mqtt import MemoryMqttSessions
from bridge.testing.push import MemoryIntake


class Connection:
    """What the source sees of a broker."""

    def __init__(self, world, *, client_id, begin, take, skip, packet_max_bytes):
        self.world, self.client_id, self.begin, self.take, self.skip = world, client_id, begin, take, skip
        self.packet_max_bytes = packet_max_bytes
        self.session_present = world.session_present
        self.calls, self.acknowledged, self.paused = [], [], False
        self.is_let_in = False
        self.gone = asyncio.get_running_loop().create_future()

    async def open(self):
        self.calls.append("open")
        if self.world.hangs:
            await asyncio.Event().wait()
        if self.world.refusal:
            raise MqttTrouble(self.world.refusal)
        self.is_let_in = True
        self.begin(self.session_present, self.world.has_identifiers)
        if self.world.ends == "opening":
            raise MqttTrouble("the connection was lost")
        if self.world.ends == "stopped":
            await asyncio.Event().wait()

    async def ended(self):
        await asyncio.shield(self.gone)

    async def close(self):
        self.calls.append("close")

    def abort(self):
        self.calls.append("abort")
        self.gone.cancel()

    async def subscribe_to(self, filters, *, qos, retained):
        if self.world.ends == "subscribing":
            raise MqttTrouble("the connection was lost")
        self.calls.append(("subscribe", list(filters), qos, retained))

    async def unsubscribe_from(self, filters):
        self.calls.append(("unsubscribe", list(filters)))

    def acknowledge(self, messages):
        self.acknowledged += [mid for mid, _ in messages]

    def pause(self):
        self.paused = True

    def resume(self):
        self.paused = False

    def lose(self, why="the connection was lost"):
        self.gone.set_exception(MqttTrouble(why))


class World:
    def __init__(self, *topics, **spec):
        self.connections, self.letters = [], []
        self.session_present = self.has_identifiers = self.hangs = False
        self.refusal = self.ends = ""
        self.intake, self.clock, self.sessions = MemoryIntake(), ManualClock(), MemoryMqttSessions()
        address = spec.pop("address", MqttAddress(host="broker", port=1883, session_expiry_s=60))
        self.spec = MqttSpec(
            name="s", address=address, topics=topics or ("t/#",), shape=raw_event, function="f", **spec
        )
        self.make()

    def make(self, **changes):
        self.spec = replace(self.spec, **changes)
        self.source = MqttSource(
            self.spec, intake=self.intake, put_letter=self._put, sessions=self.sessions, clock=self.clock, connect=self._connect
        )  # fmt: skip

    async def _put(self, letter):
        self.letters.append(letter)

    def _connect(self, address, *, wall_ms, **how):
        self.connections.append(Connection(self, **how))
        return self.connections[-1]

    async def start(self):
        self.task = asyncio.create_task(self.source.run())
        await settle(30)
        return self

    @property
    def now(self) -> Connection:
        return self.connections[-1]

    def receive(self, mid, topic="t/1", payload=b"1", **more):
        self.now.take(Message(topic, payload, qos=1, mid=mid, received_ms=1, **more))

    async def end(self):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def test_a_message_is_stored_then_acknowledged():
    world = await World().start()
    world.intake.gate.clear()
    world.receive(7, payload=b'{"a":1}')
    await settle(30)
    assert world.now.acknowledged == []

    world.intake.gate.set()
    await settle(30)

    (record,) = world.intake.stored
    assert (record.source, record.function, record.payload, record.key) == ("s", "f", b'{"a":1}', b"t/1")
    assert world.now.acknowledged == [7]
    await world.end()


async def test_the_name_of_a_session_is_stored_before_the_broker_hears_of_it():
    world = World()
    world.hangs = True
    await world.start()

    client_id = world.sessions.sessions["s"].client_id
    assert client_id.startswith("bridge-s-")
    assert world.now.client_id == client_id
    await world.end()
    world.hangs = False
    world.make()
    await world.start()
    assert world.now.client_id == client_id
    await world.end()


async def test_another_broker_or_name_is_another_session():
    world = World(client_id="mine")
    world.sessions.sessions["s"] = MqttSession(client_id="mine", broker="elsewhere:1 MQTT 5", filters=("1 old",))
    world.session_present = True
    await world.start()

    assert ("unsubscribe", ["old"]) not in world.now.calls
    assert world.sessions.sessions["s"].broker == "broker:1883 MQTT 5"
    await world.end()


async def test_each_attempt_is_a_new_connection_after_a_pause_that_doubles_to_a_minute():
    world = World()
    world.refusal = "nobody listens there"
    await world.start()
    times = []
    for _ in range(400):
        count = len(world.connections)
        await world.clock.advance(1.0)
        times += [world.clock.monotonic()] * (len(world.connections) - count)

    pauses = [b - a for a, b in zip(times, times[1:], strict=False)]
    assert world.source.trouble == "nobody listens there"
    assert times[0] <= 2.0
    assert all(28 <= pause <= 61 for pause in pauses[-3:])
    assert all("abort" in each.calls for each in world.connections)

    world.refusal = ""
    await world.clock.advance(61.0)
    assert world.source.trouble == ""
    await world.end()


async def test_a_long_connection_that_ends_is_made_anew_at_once():
    world = await World().start()
    await world.clock.advance(600)
    world.now.lose()
    await settle(30)
    assert world.source.trouble == "the connection was lost"

    await world.clock.advance(1.1)

    assert len(world.connections) == 2
    assert world.source.trouble == ""
    await world.end()


async def test_one_that_is_dropped_again_and_again_is_told_whom_to_look_for():
    world = await World(client_id="mine").start()
    for _ in range(4):
        world.now.lose()
        await settle(30)
        why = world.source.trouble
        await world.clock.advance(60.0)

    assert why == "the connection was lost; does another client use the client_id mine?"
    await world.end()


async def test_a_session_that_cannot_be_stored_is_trouble_and_tried_again():
    world = World()
    world.sessions.fail_with = StoreFull("no space")
    await world.start()
    assert world.source.trouble == "no space"
    assert world.connections == []

    world.sessions.fail_with = None
    await world.clock.advance(2.0)
    assert world.source.trouble == ""
    await world.end()


async def test_a_session_is_brought_to_what_is_asked_for():
    world = World("a/#", "b/+")
    known = MqttSession(client_id="c", broker="broker:1883 MQTT 5", filters=("1 a/#", "1 gone/#"))
    world.sessions.sessions["s"] = known
    world.session_present = True
    await world.start()

    assert world.now.calls[1:3] == [("unsubscribe", ["gone/#"]), ("subscribe", [("a/#", 0), ("b/+", 0)], 1, True)]
    assert world.sessions.sessions["s"].filters == ("1 a/#", "1 b/+")
    await world.end()


@pytest.mark.parametrize(("present", "qos", "asks"), [(True, 1, False), (False, 1, True), (True, 0, True)])
async def test_a_session_of_3_1_1_that_is_as_it_should_be_is_left(present, qos, asks):
    """Subscribing again would bring what is retained again."""
    world = World("a", address=MqttAddress(host="broker", port=1883, is_five=False, session_expiry_s=60), qos=qos)
    world.sessions.sessions["s"] = MqttSession(client_id="c", broker="broker:1883 MQTT 3.1.1", filters=("1 a",))
    world.session_present = present
    await world.start()

    assert any(call[0] == "subscribe" for call in world.now.calls) is asks
    await world.end()


@pytest.mark.parametrize("end", ["opening", "subscribing", "stopped"])
async def test_a_new_session_that_was_not_subscribed_is_subscribed_when_it_is_resumed(end):
    world = World("a", address=MqttAddress(host="broker", port=1883, is_five=False, session_expiry_s=60))
    world.sessions.sessions["s"] = MqttSession(client_id="c", broker="broker:1883 MQTT 3.1.1", filters=("1 a",))
    world.ends = end
    await world.start()
    if end == "stopped":
        await world.source.drain()
    await world.end()
    assert not any(call[0] == "subscribe" for call in world.now.calls)

    world.ends, world.session_present = "", True
    world.make()
    await world.start()

    assert ("subscribe", [("a", 0)], 1, True) in world.now.calls
    assert world.sessions.sessions["s"].filters == ("1 a",)
    await world.end()


async def test_copies_by_overlapping_filters_are_told_apart_by_their_identifiers():
    world = World("a/+/c", "a/b/+", "$share/g/z")
    world.has_identifiers = True
    await world.start()
    first, second = _identifier("a/+/c"), _identifier("a/b/+")
    assert world.now.calls[1][1] == [("a/+/c", first), ("a/b/+", second), ("$share/g/z", _identifier("$share/g/z"))]

    world.receive(1, "a/b/c", b"1", identifiers=(second,))
    world.receive(2, "a/b/c", b"1", identifiers=(first,))
    world.receive(3, "a/b/x", b"2", identifiers=(second,))
    world.receive(4, "a/b/c", b"3", identifiers=(second, first))
    world.receive(5, "a/b/c", b"4")
    world.receive(6, "z", b"5", identifiers=(_identifier("$share/g/z"),))
    await settle(30)

    assert [each.payload for each in world.intake.stored] == [b"1", b"2", b"3", b"4", b"5"]
    assert world.now.acknowledged == [1, 2, 3, 4, 5, 6]
    await world.end()


async def test_without_identifiers_a_joint_filter_is_subscribed_and_what_nobody_asked_for_left():
    world = await World("a/+/c", "a/b/+").start()
    assert world.now.calls[1][1] == [("a/+/+", 0)]

    world.receive(1, "a/b/c")
    world.receive(2, "a/x/y")
    await settle(30)

    assert len(world.intake.stored) == 1
    assert world.now.acknowledged == [1, 2]
    await world.end()


async def test_unwanted_retained_messages_are_left():
    world = await World(retained=False).start()
    world.receive(1, retain=True)
    world.receive(2)
    await settle(30)

    assert len(world.intake.stored) == 1
    assert world.now.acknowledged == [1, 2]
    await world.end()


async def test_an_event_that_is_too_large_is_a_dead_letter_without_its_payload():
    world = await World(event_max_bytes=10, payload_max_bytes=10).start()
    world.receive(1, payload=b"[1,2,3,4,5,6,7,8]")
    world.now.skip(Oversized("t/2", 2, 1, False, 300_000_000))
    world.receive(3)
    await settle(30)

    assert [json.loads(each.payload) for each in world.letters] == [
        {"topic": "t/1", "qos": 1, "bytes": 17}, {"topic": "t/2", "qos": 1, "bytes": 300_000_000},
    ]  # fmt: skip
    assert all(each.error_type == "RecordTooLarge" for each in world.letters)
    assert world.now.acknowledged == [1, 2, 3]
    await world.end()


async def test_a_drain_stores_and_acknowledges_what_was_read_then_says_goodbye():
    world = await World().start()
    world.intake.gate.clear()
    world.receive(1)
    draining = asyncio.create_task(world.source.drain())
    await settle(30)
    assert world.now.paused
    assert "close" not in world.now.calls

    world.intake.gate.set()
    await draining

    assert world.now.acknowledged == [1]
    assert world.now.calls[-2:] == ["close", "abort"]
    await world.task


@pytest.mark.parametrize("when", ["opening", "waiting", "before"])
async def test_a_drain_ends_whatever_it_is_doing(when):
    world = World()
    world.hangs = when == "opening"
    world.refusal = "" if when == "opening" else "nobody"
    if when != "before":
        await world.start()

    await world.source.drain()

    if when != "before":
        await world.task
    assert all("abort" in each.calls for each in world.connections)


async def test_a_cancel_leaves_nothing_open_and_it_may_run_again():
    world = await World().start()
    world.intake.gate.clear()
    world.receive(1)
    await settle(30)
    await world.end()
    assert world.now.calls[-1] == "abort"

    world.intake.gate.set()
    world.session_present = True
    await world.start()
    world.receive(1, dup=True)
    await settle(30)

    assert world.now.acknowledged == [1]
    assert len(world.intake.stored) == 1
    await world.end()


def test_where_it_receives_from_is_told_without_secrets():
    async def go():
        address = MqttAddress(host="b", port=8883, tls=True, username="u", password="secret")
        source = World("a/#", "b", address=address).source
        assert (source.kind, source.name, source.place) == ("mqtt", "s", "mqtts://b:8883 a/#, b")

    asyncio.run(go())
