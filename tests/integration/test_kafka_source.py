"""The Kafka source on a real broker: groups and rebalances, holes of all kinds, retention, security, odd records."""

import asyncio
import contextlib
import time
import uuid

import pytest
import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, RecordsToDelete

from bridge.core.connection import KafkaConnection, KafkaSasl, KafkaTls, SaslMechanism
from bridge.core.errors import SourceError
from bridge.core.mapping import StartingPosition
from bridge.core.stream import Mark, StreamRange
from bridge.events.kafka import KafkaShape, parse_event
from bridge.sources.pull.kafka import KafkaEventSource
from bridge.sources.pull.kafka_reach import reach
from bridge.util.clocks import SystemClock
from tests.brokers.clients import create_topic, kcat
from tests.brokers.kafka import PASSWORD, USER
from tests.contract.sources import Listener, Reading, opened

pytestmark = [pytest.mark.integration]


def source_of(bootstrap, topic, *, group="", connection=None, **more):
    return KafkaEventSource(
        connection or KafkaConnection(name="tests", bootstrap_servers=(bootstrap,)),
        topic=topic,
        group=group or f"group-{uuid.uuid4().hex}",
        clock=SystemClock(),
        **more,
    )


async def put(bootstrap, topic, *values, partition=None, **more):
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, **more) as producer:
        sent = [await producer.send(topic, value, partition=partition) for value in values]
        await asyncio.gather(*sent)


def numbered(count, start=0):
    return [b"%d" % number for number in range(start, start + count)]


async def begin(source):
    """Open a member without waiting for its partitions; what it has read is committed when it loses them."""
    listener, reader = Listener(), source.consumer()
    reading = Reading(reader, listener)

    async def commit():
        await reader.commit({shard: mark for shard, mark in marks_of(reading).items() if shard in listener.marks})
        for shard in listener.marks:
            reading.through.pop(shard, None)

    listener.when_revoked = commit
    await reader.open(listener)
    return reading


def marks_of(reading):
    return {
        shard: Mark(position=through, epoch=reading.listener.marks[shard].epoch)
        for shard, through in reading.through.items()
        if shard in reading.listener.marks
    }


@contextlib.asynccontextmanager
async def reading_on(*readings):
    """Let members read at once, in tasks, until the block ends."""

    async def keep(reading):
        while True:
            await reading.read(records_max=50, wait_s=0.2)

    tasks = [asyncio.create_task(keep(reading)) for reading in readings]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert [error for error in ended if not isinstance(error, asyncio.CancelledError)] == []


def owned(*readings):
    return [set(reading.listener.marks) for reading in readings]


def shards_of(topic, count):
    return {f"{topic}-{number}" for number in range(count)}


def everything(*readings):
    return sorted(
        int(value)
        for reading in readings
        for values in reading.values.values()
        for value in values
        if value is not None
    )


# --- groups ---------------------------------------------------------------------------------------------------------
@pytest.mark.apache_kafka("rebalances that end")
async def test_two_members_share_the_partitions_and_nothing_is_read_twice(kafka, kafka_topic, wait_until):
    topic = await kafka_topic(4)
    source, other = (source_of(kafka.bootstrap, topic, group=f"of-{topic}") for _ in range(2))
    await put(kafka.bootstrap, topic, *numbered(400))
    first = await begin(source)
    async with reading_on(first):
        await wait_until(lambda: owned(first) == [shards_of(topic, 4)], description="all are the first one's")
        second = await begin(other)
        async with reading_on(second):
            await wait_until(lambda: [len(each) for each in owned(first, second)] == [2, 2], description="two each")
            assert set.union(*owned(first, second)) == shards_of(topic, 4)
            await put(kafka.bootstrap, topic, *numbered(400, 400))
            await wait_until(lambda: len(everything(first, second)) >= 800, description="all are read")
        assert await source.others() != []
        await second.source.close()
        await wait_until(lambda: owned(first) == [shards_of(topic, 4)], description="all are the first one's again")
    await first.source.close()

    assert everything(first, second) == list(range(800))
    assert await source.others() == []


@pytest.mark.apache_kafka("rebalances that end")
async def test_members_that_come_and_go_under_load_lose_nothing(kafka, kafka_topic, wait_until):
    topic = await kafka_topic(6)
    sources = [source_of(kafka.bootstrap, topic, group=f"of-{topic}") for _ in range(3)]
    readings = []

    rounds_are_done, sent = asyncio.Event(), 0

    async def feed():
        nonlocal sent
        async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
            while not rounds_are_done.is_set():
                for _ in range(20):
                    await producer.send(topic, b"%d" % sent, partition=sent % 6)
                    sent += 1
                await asyncio.sleep(0.02)

    feeding = asyncio.create_task(feed())
    steady = await begin(sources[0])
    readings.append(steady)
    async with reading_on(steady):
        for _ in range(3):
            guests = [await begin(source) for source in sources[1:]]
            readings += guests
            async with reading_on(*guests):
                await wait_until(lambda guests=guests: all(owned(*guests)), description="the guests have some")
                await asyncio.sleep(0.2)
            for guest in guests:
                await guest.source.close()
        rounds_are_done.set()
        await feeding
        await wait_until(lambda: len(set(everything(*readings))) == sent, description="all are read")
    await steady.source.close()

    assert everything(*readings) == list(range(sent))
    assert sum(what == "revoking" for what, _ in steady.listener.log) >= 3


@pytest.mark.apache_kafka("expiry of sessions")
async def test_a_member_that_dies_is_followed_from_its_last_commit(kafka, kafka_topic, wait_until):
    topic = await kafka_topic(2)
    dying, heir = (source_of(kafka.bootstrap, topic, group=f"of-{topic}", session_timeout_s=s) for s in (4.0, 60.0))
    await put(kafka.bootstrap, topic, *numbered(100), partition=0)
    first = await opened(dying.consumer(), shards_of(topic, 2))
    await first.until(lambda: first.count == 100)
    epoch = first.listener.marks[f"{topic}-0"].epoch
    await first.source.commit({f"{topic}-0": Mark(position=39, epoch=epoch, note=b'{"tries":3}')})
    consumer = first.source._consumer
    consumer._coordinator.generation = 0  # it cannot say good-bye
    await consumer.shut()

    second = await opened(heir.consumer(), shards_of(topic, 2))
    await second.until(lambda: second.count == 60)
    await second.source.close()
    first.source._watching.cancel()

    assert second.positions == {f"{topic}-0": list(range(40, 100))}


@pytest.mark.apache_kafka("expiry of sessions")
async def test_results_for_partitions_that_the_group_gave_away_are_ignored(kafka, kafka_topic, wait_until):
    topic = await kafka_topic(1)
    source, other = (source_of(kafka.bootstrap, topic, group=f"of-{topic}", session_timeout_s=3.0) for _ in range(2))
    shard = f"{topic}-0"
    await put(kafka.bootstrap, topic, *numbered(10))
    reading = await opened(source.consumer(), {shard})
    await reading.until(lambda: reading.count == 10)

    async def say_nothing():
        return True

    # As a process that was stopped for longer than its session.
    reading.source._consumer._coordinator._do_heartbeat = say_nothing

    async def is_expelled():
        return not await other.others()

    await wait_until(is_expelled)

    await reading.source.commit({shard: Mark(position=9, epoch=reading.listener.marks[shard].epoch)})

    assert reading.listener.log[-1] == ("lost", frozenset({shard}))
    reading.through.clear()
    await reading.until(lambda: shard in reading.listener.marks)
    assert reading.listener.marks[shard].position == -1
    await reading.source.close()


@pytest.mark.apache_kafka("expiry of sessions")
async def test_a_member_whose_partitions_all_wait_stays_in_the_group(kafka, kafka_topic):
    topic = await kafka_topic(2)
    source = source_of(kafka.bootstrap, topic, session_timeout_s=3.0)
    reading = await opened(source.consumer(), shards_of(topic, 2))
    await put(kafka.bootstrap, topic, *numbered(20))

    end = time.monotonic() + 7
    while time.monotonic() < end:
        await reading.read(paused=shards_of(topic, 2), wait_s=0.2)

    await reading.until(lambda: reading.count == 20)
    assert [what for what, _ in reading.listener.log] == ["assigned"]
    await reading.source.close()


@pytest.mark.apache_kafka("rebalances that end")
async def test_a_member_that_leaves_in_the_middle_of_a_rebalance_holds_nobody_up(
    kafka, kafka_topic, wait_until, monkeypatch
):
    topic = await kafka_topic(2)
    sources = [source_of(kafka.bootstrap, topic, group=f"of-{topic}", session_timeout_s=s) for s in (20.0, 200.0)]
    steady = await begin(sources[0])
    monkeypatch.setattr("bridge.sources.pull.kafka_library.SHUT_MAX_S", 0.3)
    async with reading_on(steady):
        await wait_until(lambda: owned(steady) == [shards_of(topic, 2)], description="all are the first one's")
        steady.listener.when_revoked = lambda: asyncio.sleep(2)
        guest = await begin(sources[1])
        await wait_until(lambda: steady.listener.log[-1][0] == "revoking", description="its join waits for the other")
        await guest.source.close()

        def is_back():
            return [what for what, _ in steady.listener.log][-2:] == ["revoking", "assigned"]

        await wait_until(is_back, description="the rebalance ended before the guest's session")
    assert owned(steady) == [shards_of(topic, 2)]
    monkeypatch.undo()
    steady.listener.when_revoked = None
    await steady.source.close()


@pytest.mark.apache_kafka("static members")
async def test_a_static_member_comes_back_without_a_rebalance(kafka, kafka_topic, wait_until):
    topic = await kafka_topic(2)
    sources = [
        source_of(kafka.bootstrap, topic, group=f"of-{topic}", group_instance_id=name, session_timeout_s=20.0)
        for name in ("one", "two")
    ]
    first, second = [await begin(source) for source in sources]
    async with reading_on(first):
        async with reading_on(second):
            await wait_until(lambda: [len(each) for each in owned(first, second)] == [1, 1], description="one each")
        before = list(first.listener.log)
        await second.source.close()
        again = await begin(sources[1])
        async with reading_on(again):
            await wait_until(lambda: owned(again) != [set()], description="it is back")
        await again.source.close()
        assert first.listener.log == before
    await first.source.close()


async def test_new_partitions_are_noticed_and_read_from_their_beginning(kafka, kafka_topic, wait_until):
    topic = await kafka_topic(1)
    source = source_of(kafka.bootstrap, topic, starting_position=StartingPosition.LATEST, metadata_max_age_s=0.5)
    reading = await begin(source)
    async with reading_on(reading):
        await wait_until(lambda: owned(reading) == [shards_of(topic, 1)], description="one partition")
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
        await admin.start()
        await admin.create_partitions({topic: NewPartitions(total_count=3)})
        await admin.close()
        await put(kafka.bootstrap, topic, *numbered(5), partition=2)
        await wait_until(lambda: owned(reading) == [shards_of(topic, 3)], description="three partitions")
        await wait_until(lambda: everything(reading) == list(range(5)), description="its first records")
    await reading.source.close()


async def test_marks_are_not_moved_under_live_members(kafka, kafka_topic):
    topic = await kafka_topic(1)
    source, other = (source_of(kafka.bootstrap, topic, group=f"of-{topic}") for _ in range(2))
    reading = await opened(source.consumer(), shards_of(topic, 1))

    with pytest.raises(SourceError, match="has members"):
        await other.reset(StartingPosition.LATEST)
    (member,) = await other.others()
    assert member.startswith("bridge-")
    assert "127.0.0.1" in member

    await reading.source.close()
    await other.reset(StartingPosition.LATEST)


# --- where reading begins -------------------------------------------------------------------------------------------
async def test_latest_means_the_first_start_even_when_nothing_was_committed_since(kafka, kafka_topic):
    topic = await kafka_topic(1)
    await put(kafka.bootstrap, topic, *numbered(10))
    source = source_of(kafka.bootstrap, topic, starting_position=StartingPosition.LATEST)
    first = await opened(source.consumer(), shards_of(topic, 1))
    await first.source.close()
    await put(kafka.bootstrap, topic, *numbered(3, 10))

    second = await opened(source.consumer(), shards_of(topic, 1))
    await second.until(lambda: second.count == 3)
    await second.source.close()

    assert everything(second) == [10, 11, 12]


async def test_a_starting_time_and_one_that_no_record_has_reached(kafka, kafka_topic):
    topic = await kafka_topic(2)
    await put(kafka.bootstrap, topic, *numbered(5), partition=0)
    await asyncio.sleep(0.05)
    at = time.time()
    await asyncio.sleep(0.05)
    await put(kafka.bootstrap, topic, *numbered(2, 5), partition=0)
    await put(kafka.bootstrap, topic, *numbered(2, 7), partition=1)
    seen = {}
    for timestamp in (at, time.time() + 3600):
        source = source_of(
            kafka.bootstrap,
            topic,
            starting_position=StartingPosition.AT_TIMESTAMP,
            starting_position_timestamp=timestamp,
        )
        reading = await opened(source.consumer(), shards_of(topic, 2))
        seen[timestamp] = {shard: mark.position for shard, mark in reading.listener.marks.items()}
        await reading.source.close()

    assert list(seen.values()) == [{f"{topic}-0": 4, f"{topic}-1": -1}, {f"{topic}-0": 6, f"{topic}-1": 1}]


async def test_what_another_client_wrote_beside_its_offset_is_no_note(kafka, kafka_topic):
    from aiokafka import AIOKafkaConsumer

    topic = await kafka_topic(1)
    await put(kafka.bootstrap, topic, *numbered(10))
    group = f"of-{topic}"
    partition = TopicPartition(topic, 0)
    async with AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, group_id=group, enable_auto_commit=False) as client:
        client.assign([partition])
        await client.commit({partition: (4, "host-7 wrote this")})

    reading = await opened(source_of(kafka.bootstrap, topic, group=group).consumer(), shards_of(topic, 1))
    mark = reading.listener.marks[f"{topic}-0"]
    await reading.source.close()

    assert (mark.position, mark.note) == (3, b"")


# --- holes ----------------------------------------------------------------------------------------------------------
async def transactions(bootstrap, topic, *ends):
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=f"t-{uuid.uuid4().hex}") as producer:
        for values, is_committed in ends:
            await producer.begin_transaction()
            for value in values:
                await producer.send_and_wait(topic, value, partition=0)
            await (producer.commit_transaction() if is_committed else producer.abort_transaction())


async def test_transactions_count_only_when_they_ended_well_and_markers_are_passed_over(kafka, kafka_topic):
    topic, shard = await kafka_topic(1), None
    await transactions(
        kafka.bootstrap, topic, (numbered(3), True), (numbered(3, 3), False), (numbered(2, 6), True)
    )  # fmt: skip
    shard = f"{topic}-0"
    found, ends, behind = {}, {}, {}
    for level in ("read_committed", "read_uncommitted"):
        source = source_of(kafka.bootstrap, topic, isolation_level=level)
        reading = await opened(source.consumer(), {shard})
        await reading.until(lambda reading=reading: reading.through.get(shard) == 10)
        found[level], ends[level] = everything(reading), reading.through[shard]
        behind[level] = reading.source.behind({shard: ends[level]})[shard]
        await reading.source.commit(reading.marks())
        await reading.source.close()
        again = await opened(source.consumer(), {shard})
        assert again.listener.marks[shard].position == 10
        await again.source.close()

    assert found == {"read_committed": [0, 1, 2, 6, 7], "read_uncommitted": list(range(8))}
    assert behind == {"read_committed": 0, "read_uncommitted": 0}


async def test_a_range_that_ends_in_markers_ends(kafka, kafka_topic):
    topic = await kafka_topic(1)
    await transactions(kafka.bootstrap, topic, (numbered(3), True), (numbered(3, 3), False))
    source = source_of(kafka.bootstrap, topic, isolation_level="read_committed")

    reading = await opened(source.reader(StreamRange()), shards_of(topic, 1))
    await reading.until(lambda: bool(reading.ended))
    await reading.source.close()

    assert everything(reading) == [0, 1, 2]


@pytest.mark.apache_kafka("compaction")
async def test_a_compacted_topic_has_holes_that_are_passed_over(kafka, kafka_topic, wait_until):
    topic = await kafka_topic(
        1,
        {
            "cleanup.policy": "compact", "segment.ms": "200", "min.cleanable.dirty.ratio": "0.01",
            "max.compaction.lag.ms": "200", "min.compaction.lag.ms": "0", "delete.retention.ms": "0",
        },
    )  # fmt: skip
    shard = f"{topic}-0"

    async def write(number):
        async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
            for key in range(3):
                await producer.send_and_wait(topic, b"%d" % number, key=b"%d" % key, partition=0)

    async def read():
        reading = await opened(source_of(kafka.bootstrap, topic).consumer(), {shard})
        await reading.until(lambda: reading.through.get(shard) == last)
        await reading.source.close()
        return reading

    end = time.monotonic() + 200
    number = 0
    while True:
        await write(number)
        last = number * 3 + 2
        reading = await read()
        if reading.count < last + 1 or time.monotonic() > end:
            break
        number += 1
        await asyncio.sleep(0.3)

    positions = reading.positions[shard]
    assert positions != list(range(positions[0], positions[-1] + 1)) or positions[0] > 0, "no hole: not compacted"
    ranged = await opened(source_of(kafka.bootstrap, topic).reader(StreamRange()), {shard})
    await ranged.until(lambda: bool(ranged.ended))
    await ranged.source.close()
    assert ranged.positions[shard][-1] == last


async def test_what_retention_took_is_said_aloud_and_the_rest_is_read(kafka, kafka_topic):
    topic = await kafka_topic(1)
    shard = f"{topic}-0"
    source = source_of(kafka.bootstrap, topic)
    await put(kafka.bootstrap, topic, *numbered(100))
    reading = await opened(source.consumer(), {shard})
    await reading.until(lambda: reading.count >= 10, records_max=10)
    await reading.source.commit(reading.marks())
    await reading.source.close()
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=60)})
    await admin.close()

    with structlog.testing.capture_logs() as logs:
        again = await opened(source.consumer(), {shard})
        await again.until(lambda: again.count == 40)
    await again.source.close()

    assert again.positions[shard] == list(range(60, 100))
    (entry,) = [entry for entry in logs if entry["event"] == "records_lost"]
    assert (entry["log_level"], entry["position"], entry["continued_at"]) == ("error", 10, 60)


async def test_a_topic_that_was_made_anew_is_read_anew(kafka, kafka_topic):
    topic = await kafka_topic(1)
    shard = f"{topic}-0"
    source = source_of(kafka.bootstrap, topic)
    await put(kafka.bootstrap, topic, *numbered(50))
    reading = await opened(source.consumer(), {shard})
    await reading.until(lambda: reading.count == 50)
    await reading.source.commit(reading.marks())
    await reading.source.close()
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.delete_topics([topic])
    await admin.close()
    for _ in range(600):
        try:
            await create_topic(kafka.bootstrap, topic, configs={"retention.ms": "-1"})
            break
        except Exception:
            await asyncio.sleep(0.1)
    await put(kafka.bootstrap, topic, *numbered(5))

    # Some brokers forget the group's offsets with the topic; then it begins at the beginning by itself.
    again = await opened(source.consumer(), {shard})
    with contextlib.suppress(SourceError):
        await again.until(lambda: again.count == 5)
    await again.source.close()
    if not again.count:
        again = await opened(source.consumer(), {shard})
        await again.until(lambda: again.count == 5)
        await again.source.close()

    assert everything(again) == list(range(5))


# --- records --------------------------------------------------------------------------------------------------------
async def test_tombstones_null_keys_and_binary_headers(kafka, kafka_topic):
    topic = await kafka_topic(1)
    sent = [
        (None, b"no key", []),
        (b"\x00\xff", None, [("h", b"\x80\x7f"), ("h", b""), ("ä", b"1")]),
        (b"", b"", []),
    ]
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        for key, value, headers in sent:
            await producer.send_and_wait(topic, value, key=key, headers=headers, partition=0)

    reading = await opened(source_of(kafka.bootstrap, topic).consumer(), shards_of(topic, 1))
    await reading.until(lambda: reading.count == 3)
    await reading.source.close()

    shape = KafkaShape(topic=topic, bootstrap_servers="x")
    records = [
        record for chunk in reading.chunks for record in parse_event(shape.event([(chunk.shard, chunk.fragments)]))
    ]
    assert [(record.key, record.value, list(record.headers)) for record in records] == sent
    assert {record.topic for record in records} == {topic}


async def test_what_kcat_sends_is_what_the_handler_gets(kafka, kafka_topic):
    topic = await kafka_topic(1)
    kcat(
        kafka.bootstrap, "-P", "-t", topic, "-p", "0", "-K:", "-H", "trace=a", "-H", "trace=b",
        records=b'k1:{"n":1}\nk2:{"n":2}\n',
    )  # fmt: skip

    reading = await opened(source_of(kafka.bootstrap, topic).consumer(), shards_of(topic, 1))
    await reading.until(lambda: reading.count == 2)
    await reading.source.close()

    shape = KafkaShape(topic=topic, bootstrap_servers="x")
    first, second = parse_event(shape.event([(f"{topic}-0", [f for chunk in reading.chunks for f in chunk.fragments])]))
    assert (first.key, first.value, first.headers) == (b"k1", b'{"n":1}', (("trace", b"a"), ("trace", b"b")))
    assert second.offset == first.offset + 1


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_every_codec(kafka, kafka_topic, codec):
    topic = await kafka_topic(1)
    values = [b"%d " % number * 50 for number in range(200)]
    await put(kafka.bootstrap, topic, *values, compression_type=codec)

    reading = await opened(source_of(kafka.bootstrap, topic).consumer(), shards_of(topic, 1))
    await reading.until(lambda: reading.count == 200)
    await reading.source.close()

    assert reading.values[f"{topic}-0"] == values


@pytest.mark.apache_kafka("records above 1 MB")
async def test_records_above_what_a_fetch_asks_for_still_come(kafka, kafka_topic):
    topic = await kafka_topic(1, {"max.message.bytes": "6000000"})
    values = [b"a", b"b" * 1_000_000, b"c" * 5_000_000, b"d"]
    await put(kafka.bootstrap, topic, *values, max_request_size=6_000_000)

    reading = await opened(source_of(kafka.bootstrap, topic).consumer(), shards_of(topic, 1))
    await reading.until(lambda: reading.count == 4)
    await reading.source.close()

    assert reading.values[f"{topic}-0"] == values


async def test_a_topic_whose_name_looks_like_a_partition(kafka):
    topic = f"a-b-7-{uuid.uuid4().hex[:6]}-1"
    await create_topic(kafka.bootstrap, topic, partitions=2)
    await put(kafka.bootstrap, topic, *numbered(4), partition=1)

    reading = await opened(source_of(kafka.bootstrap, topic).consumer(), shards_of(topic, 2))
    await reading.until(lambda: reading.count == 4)
    await reading.source.close()

    assert set(reading.positions) == {f"{topic}-1"}


# --- who may connect ------------------------------------------------------------------------------------------------
def unsigned_token():
    import base64
    import json

    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none'})}.{part({'sub': 'bridge', 'iat': time.time() - 1, 'exp': time.time() + 600})}."


@pytest.mark.parametrize("how", ["tls", "plain", "scram-256", "scram-512", "scram-512 over tls", "oauth"])
async def test_tls_and_sasl(kafka_secured, kafka_topic, how):
    topic = await kafka_topic(1)
    await put(kafka_secured.bootstrap, topic, *numbered(3))
    files = kafka_secured.certificates
    user = {"username": USER, "password": PASSWORD}
    authority = KafkaTls(ca=str(files.ca))
    address, tls, sasl = {
        "tls": (
            kafka_secured.tls,
            KafkaTls(ca=str(files.ca), cert=str(files.client_certificate), key=str(files.client_key)),
            None,
        ),
        "plain": (kafka_secured.sasl, None, KafkaSasl(mechanism=SaslMechanism.PLAIN, **user)),
        "scram-256": (kafka_secured.sasl, None, KafkaSasl(mechanism=SaslMechanism.SCRAM_SHA_256, **user)),
        "scram-512": (kafka_secured.sasl, None, KafkaSasl(mechanism=SaslMechanism.SCRAM_SHA_512, **user)),
        "scram-512 over tls": (
            kafka_secured.sasl_tls, authority, KafkaSasl(mechanism=SaslMechanism.SCRAM_SHA_512, **user)
        ),
        "oauth": (
            kafka_secured.sasl, None, KafkaSasl(mechanism=SaslMechanism.OAUTHBEARER, token=f"{__name__}:unsigned_token")
        ),
    }[how]  # fmt: skip
    connection = KafkaConnection(name="secured", bootstrap_servers=(address,), tls=tls, sasl=sasl)

    reading = await opened(source_of("", topic, connection=connection).consumer(), shards_of(topic, 1))
    await reading.until(lambda: reading.count == 3)
    await reading.source.commit(reading.marks())
    await reading.source.close()


@pytest.mark.parametrize("how", ["let in", "wrong password", "wrong authority"])
async def test_a_try_says_whether_it_was_reached_and_let_in(kafka_secured, kafka_topic, how):
    topic = await kafka_topic(1)
    files = kafka_secured.certificates
    sasl = KafkaSasl(
        mechanism=SaslMechanism.PLAIN, username=USER, password="wrong" if how == "wrong password" else PASSWORD
    )
    tls = KafkaTls() if how == "wrong authority" else KafkaTls(ca=str(files.ca))
    found = await reach(
        KafkaConnection(name="secured", bootstrap_servers=(kafka_secured.sasl_tls,), tls=tls, sasl=sasl), deadline_s=60
    )

    if how == "let in":
        assert (found.problem, topic in found.topics) == ("", True)
        return
    assert found.problem.startswith("answers, but does not let us in")
    assert ("uthentication" if how == "wrong password" else "ertificate") in found.problem
    assert "\n" not in found.problem
    assert found.topics == frozenset()


async def test_a_wrong_password_is_said_in_one_line(kafka_secured, kafka_topic):
    topic = await kafka_topic(1)
    sasl = KafkaSasl(mechanism=SaslMechanism.SCRAM_SHA_512, username=USER, password="wrong")
    connection = KafkaConnection(name="secured", bootstrap_servers=(kafka_secured.sasl,), sasl=sasl)

    with pytest.raises(SourceError) as caught:
        await source_of("", topic, connection=connection).consumer().open(Listener())

    assert str(caught.value).startswith("kafka secured: cannot connect")
    assert "\n" not in str(caught.value)
    assert "wrong" not in str(caught.value)


async def test_an_authority_that_is_not_the_brokers_is_not_believed(kafka_secured, kafka_topic):
    topic = await kafka_topic(1)
    connection = KafkaConnection(name="secured", bootstrap_servers=(kafka_secured.sasl_tls,), tls=KafkaTls())

    with pytest.raises(SourceError, match="cannot connect"):
        await source_of("", topic, connection=connection).consumer().open(Listener())


async def test_nobody_there_and_no_such_topic(kafka):
    with pytest.raises(SourceError, match="kafka tests: cannot connect"):
        await source_of("127.0.0.1:1", "orders").consumer().open(Listener())
    for attempt in (
        source_of(kafka.bootstrap, "there-is-none").consumer().open,
        source_of(kafka.bootstrap, "there-is-none").reader(StreamRange()).open,
    ):
        with pytest.raises(SourceError, match="no topic there-is-none"):
            await attempt(Listener())
    with pytest.raises(SourceError, match="no topic there-is-none"):
        await source_of(kafka.bootstrap, "there-is-none").reset(StartingPosition.LATEST)


# --- brokers that go ------------------------------------------------------------------------------------------------
async def test_a_broker_that_restarts_costs_nothing_but_time(kafka_broker, wait_until):
    broker = kafka_broker()
    await create_topic(broker.bootstrap, "orders", partitions=2)
    await put(broker.bootstrap, "orders", *numbered(100))
    source = source_of(broker.bootstrap, "orders")
    reading = await opened(source.consumer(), shards_of("orders", 2))
    await reading.until(lambda: reading.count == 100)
    await reading.source.commit(reading.marks())

    with structlog.testing.capture_logs() as logs:
        broker.kill()
        used = time.process_time()
        for _ in range(10):
            await reading.read(wait_s=0.3)
        used = time.process_time() - used
        said = [entry for entry in logs if entry["log_level"] in ("warning", "error")]
        await asyncio.to_thread(broker.start)
        await put(broker.bootstrap, "orders", *numbered(100, 100))
        reading.through = {}
        await reading.until(lambda: len(set(everything(reading))) == 200)
    await reading.source.commit(marks_of(reading))
    await reading.source.close()

    assert set(everything(reading)) == set(range(200))
    assert used < 2.0, "a broker that is away keeps nobody busy"
    assert len(said) < 30


async def test_a_broker_that_is_away_is_left_in_time_and_takes_no_commits(kafka_broker):
    broker = kafka_broker()
    await create_topic(broker.bootstrap, "orders")
    await put(broker.bootstrap, "orders", *numbered(10))
    reading = await opened(source_of(broker.bootstrap, "orders").consumer(), shards_of("orders", 1))
    await reading.until(lambda: reading.count == 10)
    broker.kill()

    async with asyncio.timeout(60):
        with pytest.raises(SourceError, match="cannot commit"):
            await reading.source.commit(reading.marks())
    async with asyncio.timeout(60):
        await reading.source.close()


async def test_a_broker_that_hangs_is_waited_for(kafka_broker, wait_until):
    broker = kafka_broker()
    await create_topic(broker.bootstrap, "orders")
    await put(broker.bootstrap, "orders", *numbered(10))
    reading = await opened(source_of(broker.bootstrap, "orders").consumer(), shards_of("orders", 1))
    await reading.until(lambda: reading.count == 10)
    await reading.source.commit(reading.marks())

    broker.pause()
    end = time.monotonic() + 5
    while time.monotonic() < end:
        await reading.read(wait_s=0.3)
    broker.resume()
    await put(broker.bootstrap, "orders", *numbered(10, 10))
    reading.through = {}
    await reading.until(lambda: len(set(everything(reading))) == 20)
    await reading.source.close()
