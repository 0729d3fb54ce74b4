"""Runs the daemon with a planted fault: launch.py MUTANT ARGUMENTS of bridge …

Each fault is a mistake that daemons of this kind have really made; the crash tests must catch every one. Times that tests
would wait for too long are shortened by BRIDGE_TEST_SESSION_S, BRIDGE_TEST_REVOKE_S, BRIDGE_TEST_POLL_INTERVAL_S and
BRIDGE_TEST_QUEUE_S.
"""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

DELAY_S = 1.0
_tasks: set["asyncio.Task[object]"] = set()


def later(work: Callable[[], object], delay_s: float = DELAY_S) -> None:
    """Do what should have been awaited some time later, in the background."""

    async def run() -> None:
        await asyncio.sleep(delay_s)
        await work()

    task = asyncio.create_task(run())
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


def none() -> None:
    """No fault: the same launcher, for comparison."""


def acknowledge_before_commit() -> None:
    """The sender gets its 202 while the event is still on its way to the disk."""
    from bridge.pipeline.intake import JournalIntake

    store = JournalIntake._store

    async def stored_later(self, record):
        later(lambda: store(self, record))
        return record

    JournalIntake._store = stored_later


def acknowledge_mqtt_on_arrival() -> None:
    """PUBACK goes out when a message comes, as clients do that are left alone."""
    from bridge.sources.push.mqtt_inbox import MqttInbox

    store = MqttInbox._store

    async def acknowledged_first(self, entry):
        entry.is_done = True
        self._settle_soon()
        await asyncio.sleep(DELAY_S / 4)
        await store(self, entry)

    MqttInbox._store = acknowledged_first


def drop_on_full_queue() -> None:
    """A full lane swallows the event instead of pushing back."""
    from bridge.core.errors import LaneFull
    from bridge.core.ports import Receipt
    from bridge.pipeline.intake import JournalIntake
    from bridge.pipeline.lanes import Lane

    submit, begin = JournalIntake.submit, Lane.__init__

    def small(self, *arguments, **options):
        begin(self, *arguments, **options | {"events_max": 2})

    async def dropping(self, record, *, deduplicate_s=0.0):
        try:
            return await submit(self, record, deduplicate_s=deduplicate_s)
        except LaneFull:
            return Receipt(id=record.id)

    JournalIntake.submit, Lane.__init__ = dropping, small


def dead_letter_not_awaited() -> None:
    """The parked row goes while the dead letter is still on its way to the disk."""
    from bridge.destinations.spill import Spill

    send = Spill.send

    async def sent_later(self, letter):
        later(lambda: send(self, letter))

    Spill.send = sent_later


def commit_before_handled() -> None:
    """A batch counts as finished when it begins."""
    from bridge.pipeline.streams.delivery import BatchDelivery

    attempt = BatchDelivery.attempt

    async def finished_first(self, batch, target, slot):
        for part in batch.parts:
            part.lane.shard.finish(part.pieces)
        await self._before_retry()
        return await attempt(self, batch, target, slot)

    BatchDelivery.attempt = finished_first


def commit_all_handed_out() -> None:
    """A commit without offsets: aiokafka takes everything that it has handed out."""
    from aiokafka import AIOKafkaConsumer

    from bridge.sources.pull.kafka_group import KafkaGroupSource

    async def everything(self, consumer, offsets):
        del offsets
        await AIOKafkaConsumer.commit(consumer)
        return True

    KafkaGroupSource._send_commit = everything


def stream_dead_letter_not_awaited() -> None:
    """The records count as given up while their dead letter is still on its way to the disk."""
    from bridge.pipeline.streams.failures import Failures

    discard = Failures.discard

    async def discarded_later(self, one, **options):
        later(lambda: discard(self, one, **options), 3.0)

    Failures.discard = discarded_later


def commit_of_a_revoked_shard() -> None:
    """What ends after its shard went to another member is committed all the same."""
    from aiokafka import TopicPartition
    from aiokafka.structs import OffsetAndMetadata

    from bridge.pipeline.streams.worker import MappingWorker

    handle = MappingWorker._handle

    async def committed_late(self, batch, *arguments, **options):
        await handle(self, batch, *arguments, **options)
        consumer = self._commits.source._consumer
        for part in batch.parts:
            shard = part.lane.shard
            if not shard.is_attached:
                shard.finish(part.pieces)
                topic, _, number = shard.name.rpartition("-")
                offsets = {TopicPartition(topic, int(number)): OffsetAndMetadata(shard.track.mark + 1, "")}
                # Past aiokafka's own check of what is assigned.
                await consumer._coordinator.commit_offsets(consumer._subscription.subscription.assignment, offsets)

    MappingWorker._handle = committed_late


def not_polled_while_running() -> None:
    """Nothing is read while a batch runs: the client counts as gone after max_poll_interval_ms."""
    from bridge.pipeline.streams.worker import MappingWorker

    take_in = MappingWorker._take_in

    async def waiting(self, poll):
        await take_in(self, poll)
        await asyncio.sleep(0)
        while self._running:
            await asyncio.sleep(0.01)

    MappingWorker._take_in = waiting


def delete_before_handled() -> None:
    """Messages go from their queue when their batch begins."""
    from bridge.pipeline.queues.worker import QueueWorker

    handle = QueueWorker._handle

    async def handled(self, batch, target, slot):
        await self._settling.delete(batch.messages)
        return await handle(self, batch, target, slot)

    QueueWorker._handle = handled


def groups_not_kept() -> None:
    """A FIFO queue is taken for a standard one."""
    from bridge.pipeline.queues.worker import QueueWorker

    new_buffer = QueueWorker._new_buffer
    QueueWorker._new_buffer = lambda self, *, is_fifo: new_buffer(self, is_fifo=False)


def children_at_once() -> None:
    """Shards are read beside those that they come from."""
    from dataclasses import replace

    from bridge.sources.pull import shard_reader

    startable = shard_reader.startable

    def orphaned(listed, *arguments):
        return startable({name: replace(shard, parents=()) for name, shard in listed.items()}, *arguments)

    shard_reader.startable = orphaned


MUTANTS = {
    f.__name__: f
    for f in (
        none, acknowledge_before_commit, acknowledge_mqtt_on_arrival, drop_on_full_queue, dead_letter_not_awaited, commit_before_handled,
        commit_all_handed_out, stream_dead_letter_not_awaited, commit_of_a_revoked_shard, not_polled_while_running,
        delete_before_handled, groups_not_kept, children_at_once,
    )
}  # fmt: skip


def shorten() -> None:
    """Shorten what the environment names."""
    from bridge.core import limits
    from bridge.sources.pull import kafka, kafka_group

    if session_s := os.environ.get("BRIDGE_TEST_SESSION_S"):
        kafka.KafkaEventSource.__init__.__kwdefaults__["session_timeout_s"] = float(session_s)
    if revoke_s := os.environ.get("BRIDGE_TEST_REVOKE_S"):
        limits.REVOKE_MAX_S = float(revoke_s)
    if interval_s := os.environ.get("BRIDGE_TEST_POLL_INTERVAL_S"):
        kafka_group.POLL_INTERVAL_MAX_MS = round(float(interval_s) * 1000)
    if queue_s := os.environ.get("BRIDGE_TEST_QUEUE_S"):
        # How long messages stay hidden from nobody, and how long ministack holds polls that nobody waits for any more.
        limits.QUEUE_HIDDEN_SPARE_S = limits.QUEUE_WAIT_S = float(queue_s)


if __name__ == "__main__":
    if any(name.startswith("BRIDGE_TEST_") for name in os.environ):
        shorten()
    MUTANTS[sys.argv[1]]()
    sys.argv = ["bridge", *sys.argv[2:]]

    from bridge.cli.main import main

    main()
