"""Provisioned concurrency: workers stand before they are asked, stay, are nobody else's, and say why they do not."""

import asyncio

import pytest
import pytest_asyncio

from bridge.runtime import provisioned
from bridge.util import telemetry
from bridge.util.clocks import SystemClock
from tests.harness import wait_until
from tests.unit.runtime.conftest import own_pool

pytestmark = pytest.mark.asyncio(loop_scope="module")
NAME = "provisioned-sample"


class SteppedClock(SystemClock):
    """The system's clock, which a test may move on."""

    def __init__(self):
        super().__init__()
        self.ahead_s = 0.0

    def monotonic(self):
        return super().monotonic() + self.ahead_s


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool_of_four(tmp_path_factory):
    folder = tmp_path_factory.mktemp("provisioned")
    async with own_pool(folder, clock=SteppedClock(), workers_max=4) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def runner(pool_of_four):
    yield pool_of_four
    pool_of_four.pool.provisioned.configure(NAME, [])
    await pool_of_four.clear()


def sample(runner, handler="app.count", **more):
    return runner.version(handler, name=NAME, version="1", **more)


async def warm(runner, version, count):
    runner.pool.provisioned.configure(NAME, [(version, count)])
    await wait_until(lambda: runner.pool.provisioned.state(version).ready == count, description="they are warm")


def metric(kind):
    return kind.labels(function=NAME)._value.get()


async def test_they_are_initialised_before_the_first_invocation_and_say_so(runner):
    version = sample(runner, "app.who")
    await warm(runner, version, 2)
    assert runner.pool.free_slots(version) >= 2
    result = await runner.pool.invoke(version, runner.invocation())
    assert b'"AWS_LAMBDA_INITIALIZATION_TYPE": "provisioned-concurrency"' in result.payload


async def test_what_goes_beyond_runs_on_demand_and_is_counted(runner):
    version = sample(runner, "app.sleep")
    await warm(runner, version, 1)
    provisioned_before, spilled_before = metric(telemetry.PROVISIONED), metric(telemetry.SPILLED)
    results = await asyncio.gather(*(runner.pool.invoke(version, runner.invocation(0.3)) for _ in range(2)))
    assert all(result.is_ok for result in results)
    assert metric(telemetry.PROVISIONED) - provisioned_before == 1
    assert metric(telemetry.SPILLED) - spilled_before == 1
    fleet = runner.pool._fleet(version)
    assert sorted(worker.is_provisioned for worker in fleet.workers) == [False, True]
    await runner.pool.invoke(version, runner.invocation(0))  # both idle: the provisioned one comes first
    assert metric(telemetry.PROVISIONED) - provisioned_before == 2


async def test_idleness_and_other_functions_do_not_end_them(runner):
    version = sample(runner)
    await warm(runner, version, 2)
    first = {worker.id for worker in runner.pool._fleet(version).workers}
    runner.pool._clock.ahead_s += 10_000
    runner.pool._reaper.look()
    others = [runner.run("app.sleep", 0.2, name=f"other{number}") for number in range(3)]
    assert all(result.is_ok for result in await asyncio.gather(*others))
    assert {worker.id for worker in runner.pool._fleet(version).workers} == first


async def test_a_worker_that_dies_is_replaced(runner):
    version = sample(runner, "app.run")
    await warm(runner, version, 1)
    await runner.pool.invoke(version, runner.invocation({"code": "import os; os._exit(3)"}))
    await wait_until(lambda: runner.pool.provisioned.state(version).ready == 1, description="another one is warm")
    assert runner.pool.provisioned.state(version).trouble == ""


@pytest.mark.parametrize("handler", ["broken.handler", "leaving.handler"])
async def test_an_init_that_fails_is_told_and_tried_again_later(runner, handler):
    version = sample(runner, handler)
    runner.pool.provisioned.configure(NAME, [(version, 2)])
    state = runner.pool.provisioned.state
    await wait_until(lambda: state(version).trouble, description="it has failed")
    assert state(version).trouble == provisioned.INIT_FAILED
    await wait_until(lambda: not runner.pool._workers, description="nothing is tried meanwhile")
    tried = runner.pool._starter._ids
    runner.pool.provisioned.top_up()
    assert runner.pool._starter._ids == tried
    runner.pool._clock.ahead_s += provisioned.AGAIN_S
    runner.pool.provisioned.top_up()
    await wait_until(lambda: runner.pool._starter._ids == tried + 1, description="one is tried again")


async def test_a_quarter_of_the_places_is_never_provisioned(runner):
    version = sample(runner)
    runner.pool.provisioned.configure(NAME, [(version, 9)])
    state = runner.pool.provisioned.state
    await wait_until(lambda: state(version).ready == 3, description="what may be is warm")
    assert state(version).trouble == "all 3 workers that may be provisioned are (workers_max of [runtime])"
    assert await runner.value("app.echo", 1, name="another") == 1


async def test_fewer_and_none(runner):
    version = sample(runner)
    await warm(runner, version, 3)
    await warm(runner, version, 1)
    await wait_until(lambda: len(runner.pool._workers) == 1, description="the others have ended")
    runner.pool.provisioned.configure(NAME, [])
    await wait_until(lambda: not runner.pool._workers, description="the last one has ended")
    assert runner.pool.provisioned.state(version).allocated == 0


async def test_another_version_takes_their_place(runner):
    first, second = sample(runner), runner.version("app.count", name=NAME, version="2", revision="two")
    await warm(runner, first, 2)
    runner.pool.provisioned.configure(NAME, [(second, 2)])
    await wait_until(lambda: runner.pool.provisioned.state(second).ready == 2, description="the new ones are warm")
    await wait_until(lambda: len(runner.pool._workers) == 2, description="the old ones have ended")
    assert runner.pool.provisioned.state(first).allocated == 0
