"""A full disk, a slow handler, ten times the load: nothing is dropped by us, memory is bounded, and it goes on by itself."""

import pytest

from tests.crash.test_kafka_faults import SMALL, fill
from tests.harness import wait_for
from tests.integration.test_disk import SmallDisk

pytestmark = [pytest.mark.crash, pytest.mark.timeout(900)]

FILLER = 2000
"""Bytes of a message: a thousand are two of the source's buffers."""
MORE_MIB = 48
"""What a daemon may grow by: a buffer of 1 MiB, what the journal and the mapping hold, and the allocator's slack."""


def is_hindered(run) -> bool:
    return "messages wait to be stored" in run.daemon.admin("GET", "/admin/v1/sources/load").json()["trouble"]


def test_a_full_disk_holds_the_broker_back_until_there_is_room(mqtt_rig, tmp_path) -> None:
    disk = SmallDisk(tmp_path / "disk", 24)
    run = mqtt_rig(settings=SMALL, state=disk.folder / "state")
    try:
        run.start()
        with run.load(filler=FILLER):
            run.more(300)
            before = run.daemon.rss_mib()
            # What room the daemon makes by itself, its ballast first, is filled too; the others are with the broker.
            fill(disk, until=lambda: run.acked - taken(run) > 1500 and is_hindered(run))
            assert run.daemon.rss_mib() - before < MORE_MIB

            (disk.folder / "fill").unlink()
            disk.resize(256)
            run.more(300)
            wait_for(lambda: not is_hindered(run), description="it goes on by itself")

        verdict = run.judge()
    finally:
        run.daemon.stop()
        disk.close()

    assert verdict["valid"]
    assert (verdict["lost"], verdict["duplicated"], verdict["dlq"]) == (0, 0, 0)


def test_a_slow_handler_under_ten_times_its_load_drops_nothing(mqtt_rig) -> None:
    """Four shards of 5 ms a record handle 800 a second at most; the mapping may be 500 behind, the rest is the broker's."""
    run = mqtt_rig(record_s=0.005, settings="journal = { lane_events_max = 500 }")
    run.start()
    with run.load(pause_s=0, filler=FILLER, window=2000):
        run.more(100)
        before = run.daemon.rss_mib()
        wait_for(lambda: is_hindered(run), description="it holds the broker back")
        run.publish(3000)
        assert run.daemon.rss_mib() - before < MORE_MIB

    verdict = run.judge()

    assert verdict["valid"]
    assert (verdict["lost"], verdict["duplicated"], verdict["dlq"]) == (0, 0, 0)
    assert run.daemon.rss_mib() - before < MORE_MIB


def taken(run) -> float:
    return run.daemon.metrics()['bridge_events_accepted_total{source="load",type="Event"}']
