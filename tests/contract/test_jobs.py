"""The contract of Jobs, over every implementation."""

import asyncio
from dataclasses import replace
from typing import Any

from bridge.core.ports import Job, JobState
from tests.contract.stores import NOW, Stores, stores

__all__ = ["stores"]


def job(name: str = "tuesday", **changes: Any) -> Job:
    return replace(
        Job(name=name, kind="replay", state=JobState.STARTING, spec=b'{"rate": 5}', created_at=NOW), **changes
    )


async def test_a_job_comes_back_as_it_was(stores: Stores) -> None:
    made = job(
        kind="redrive",
        state=JobState.FAILED,
        spec=b"\x00\xff",
        cursor="4294967297",
        total=10,
        done=5,
        failed=3,
        skipped=2,
        ended_at=NOW + 9.5,
        reason="StoreFull: no space ☃",
    )

    assert await stores.jobs.create(made) is True
    assert made == await stores.jobs.get("tuesday")


async def test_what_is_not_known_yet_stays_unknown(stores: Stores) -> None:
    await stores.jobs.create(job())
    found = await stores.jobs.get("tuesday")

    assert found is not None
    assert (found.total, found.ended_at) == (None, None)


async def test_a_taken_name_is_refused_and_the_first_job_stays(stores: Stores) -> None:
    await stores.jobs.create(job())

    assert await stores.jobs.create(job(kind="redrive")) is False
    assert job() == await stores.jobs.get("tuesday")


async def test_of_many_creates_of_one_name_one_wins(stores: Stores) -> None:
    won = await asyncio.gather(*(stores.jobs.create(job(cursor=str(n))) for n in range(100)))

    assert 1 == sum(won)


async def test_update_replaces(stores: Stores) -> None:
    await stores.jobs.create(job())
    after = job(state=JobState.COMPLETED, cursor="9", total=4, done=4, ended_at=NOW + 1)
    await stores.jobs.update(after)
    await stores.jobs.update(after)

    assert after == await stores.jobs.get("tuesday")


async def test_a_job_that_was_deleted_meanwhile_stays_deleted(stores: Stores) -> None:
    await stores.jobs.create(job())
    await stores.jobs.delete("tuesday")
    await stores.jobs.delete("tuesday")
    await stores.jobs.update(job(done=1))

    assert await stores.jobs.get("tuesday") is None
    assert [] == await stores.jobs.list()


async def test_jobs_are_listed_newest_first_by_kind(stores: Stores) -> None:
    for name, kind, created_at in (
        ("b", "replay", 1.0),
        ("c", "redrive", 3.0),
        ("d", "replay", 2.0),
        ("a", "replay", 2.0),
    ):
        await stores.jobs.create(job(name, kind=kind, created_at=created_at))

    assert ["c", "a", "d", "b"] == [each.name for each in await stores.jobs.list()]
    assert ["a", "d", "b"] == [each.name for each in await stores.jobs.list("replay")]
    assert [] == await stores.jobs.list("export")
