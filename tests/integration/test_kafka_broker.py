"""The broker that the Kafka tests stand on: what they ask of it works before anything of ours is in the way."""

import asyncio
import os
import uuid

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

from tests.brokers.clients import create_topic, kcat, tls_context
from tests.brokers.kafka import PASSWORD, USER
from tests.harness import wait_until

pytestmark = pytest.mark.integration

CODECS = [None, "gzip", "snappy", "lz4", "zstd"]


async def produce(address, topic, values, *, partition=None, **options):
    async with AIOKafkaProducer(bootstrap_servers=address, **options) as producer:
        for value in values:
            await (await producer.send(topic, value, partition=partition))


async def consume(address, topic, count, **options):
    async with (
        AIOKafkaConsumer(
            topic, bootstrap_servers=address, auto_offset_reset="earliest", group_id=None, **options
        ) as consumer,
        asyncio.timeout(60),
    ):
        return [await consumer.getone() for _ in range(count)]


def member(kafka, topic, group):
    return AIOKafkaConsumer(
        topic, bootstrap_servers=kafka.bootstrap, group_id=group, auto_offset_reset="earliest",
        enable_auto_commit=False, heartbeat_interval_ms=200,
    )  # fmt: skip


@pytest.mark.parametrize("codec", CODECS)
async def test_every_codec_goes_in_and_comes_out(kafka, kafka_topic, codec):
    topic = await kafka_topic(3)

    for partition in range(3):
        await produce(kafka.bootstrap, topic, [b"x" * 5000] * 5, partition=partition, compression_type=codec)

    records = await consume(kafka.bootstrap, topic, 15)
    assert {(record.partition, record.value) for record in records} == {(n, b"x" * 5000) for n in range(3)}


async def test_kcat_writes_keys_and_headers_and_reads_what_aiokafka_wrote(kafka, kafka_topic):
    topic = await kafka_topic(3)

    await asyncio.to_thread(
        kcat, kafka.bootstrap, "-P", "-t", topic, "-K", ":", "-H", "trace=one", "-z", "zstd", records=b"a:1\nb:2\n"
    )
    await produce(kafka.bootstrap, topic, [b"3"])

    records = await consume(kafka.bootstrap, topic, 3)
    assert {(r.key, r.value, r.headers) for r in records} == {
        (b"a", b"1", (("trace", b"one"),)), (b"b", b"2", (("trace", b"one"),)), (None, b"3", ()),
    }  # fmt: skip
    printed = await asyncio.to_thread(kcat, kafka.bootstrap, "-C", "-t", topic, "-e", "-q", "-f", "%s\n")
    assert sorted(printed.split()) == [b"1", b"2", b"3"]


async def test_two_members_share_and_the_one_that_stays_takes_over(kafka, kafka_topic):
    topic = await kafka_topic(4)
    group = uuid.uuid4().hex

    async def polled(consumer):
        await consumer.getmany(timeout_ms=50)
        return len(consumer.assignment())

    async with member(kafka, topic, group) as stays:
        async with member(kafka, topic, group) as leaves:

            async def halves():
                return (await polled(stays), await polled(leaves)) == (2, 2)

            await wait_until(halves)
        await wait_until(lambda: len(stays.assignment()) == 4)


@pytest.mark.apache_kafka("expulsion of members that die")
async def test_a_member_that_dies_is_expelled_after_its_session_timeout(kafka, kafka_topic):
    topic = await kafka_topic(2)
    group = uuid.uuid4().hex
    dead = await asyncio.create_subprocess_exec(
        "kcat", "-b", kafka.bootstrap, "-X", "session.timeout.ms=1500", "-X", "heartbeat.interval.ms=300",
        "-G", group, topic, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert dead.stderr is not None
    async with asyncio.timeout(60):
        while b"assigned" not in await dead.stderr.readline():
            pass

    dead.kill()
    await dead.communicate()

    async with member(kafka, topic, group) as heir:
        await wait_until(lambda: len(heir.assignment()) == 2)


async def test_transactions_are_seen_whole_or_not_at_all(kafka, kafka_topic):
    topic = await kafka_topic()
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=uuid.uuid4().hex) as producer:
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"aborted")
        await producer.abort_transaction()
        async with producer.transaction():
            await producer.send_and_wait(topic, b"committed")

    committed = await consume(kafka.bootstrap, topic, 1, isolation_level="read_committed")
    everything = await consume(kafka.bootstrap, topic, 2, isolation_level="read_uncommitted")

    assert [record.value for record in committed] == [b"committed"]
    assert [record.value for record in everything] == [b"aborted", b"committed"]


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("tls", [False, True])
async def test_users_are_let_in_by_their_password_alone(kafka_secured, kafka_topic, mechanism, tls):
    topic = await kafka_topic()
    address = kafka_secured.sasl_tls if tls else kafka_secured.sasl
    options = {"sasl_mechanism": mechanism, "sasl_plain_username": USER, "security_protocol": "SASL_PLAINTEXT"}
    if tls:
        options |= {
            "security_protocol": "SASL_SSL",
            "ssl_context": tls_context(kafka_secured.certificates, client=False),
        }

    await produce(address, topic, [b"1"], **options, sasl_plain_password=PASSWORD)

    assert [r.value for r in await consume(address, topic, 1, **options, sasl_plain_password=PASSWORD)] == [b"1"]
    with pytest.raises(KafkaError):
        await produce(address, topic, [b"2"], **options, sasl_plain_password="wrong")


async def test_clients_are_let_in_by_their_certificate_alone(kafka_secured, kafka_topic):
    topic = await kafka_topic()

    shown = tls_context(kafka_secured.certificates)
    await produce(kafka_secured.tls, topic, [b"1"], security_protocol="SSL", ssl_context=shown)

    assert [r.value for r in await consume(kafka_secured.bootstrap, topic, 1)] == [b"1"]
    stranger = tls_context(kafka_secured.certificates, client=False)
    with pytest.raises(KafkaError):
        await produce(kafka_secured.tls, topic, [b"2"], security_protocol="SSL", ssl_context=stranger)


async def test_a_broker_of_ones_own_keeps_its_data_through_kill_restart_and_pause(kafka_broker):
    broker = kafka_broker({"message.max.bytes": "2000"})
    await create_topic(broker.bootstrap, "kept", partitions=2)
    await produce(broker.bootstrap, "kept", [b"1"])

    await asyncio.to_thread(broker.kill)
    await asyncio.to_thread(broker.start)
    broker.pause()
    late = asyncio.create_task(produce(broker.bootstrap, "kept", [b"2"]))
    await asyncio.sleep(0.2)
    assert not late.done()
    broker.resume()
    async with asyncio.timeout(60):
        await late

    assert sorted(r.value for r in await consume(broker.bootstrap, "kept", 2)) == [b"1", b"2"]
    with pytest.raises(KafkaError):
        await produce(broker.bootstrap, "kept", [os.urandom(3000)])
