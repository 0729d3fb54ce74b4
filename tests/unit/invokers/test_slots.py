"""Who gets a free slot: callers that wait for an answer, then lanes, then replays; none is lost or counted twice."""

import asyncio
import re

import pytest

from bridge.core.errors import FunctionNotFound, Throttled
from bridge.core.function import Function, FunctionVersion, function_arn
from bridge.core.invocation import THROTTLE_RESERVED, Invocation
from bridge.invokers.service import Draw, FunctionService
from bridge.registry.catalog import FunctionCatalog
from bridge.testing.clock import ManualClock, settle
from bridge.testing.runtime import ScriptedRuntime


class Catalog:
    def __init__(self, **reserved: int | None) -> None:
        self.functions = {name: self._function(name, limit) for name, limit in reserved.items()}

    @staticmethod
    def _function(name: str, reserved: int | None) -> Function:
        version = FunctionVersion(name=name, arn=function_arn(name), code="/x", revision="1", handler="a.b")
        return Function(name=name, latest=version, reserved_concurrency=reserved)

    def get(self, name: str) -> Function:
        if name not in self.functions:
            raise FunctionNotFound(name)
        return self.functions[name]


class World:
    """A service over functions `one` and `other`, each reserved once, whose invocations take a second."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.runtime = ScriptedRuntime(self.clock)
        self.runtime.duration_s = {"one": 1.0, "other": 1.0}
        self.service = FunctionService(
            catalog=Catalog(one=1, other=1, stopped=0), runtime=self.runtime, clock=self.clock, sync_wait_s=1.5
        )
        self.tasks: list[asyncio.Task[object]] = []
        self.lane_has_more = True

    def call(self, name: str, request_id: str) -> "asyncio.Task[object]":
        task = asyncio.create_task(self.service.invoke(name, request_id=request_id, payload=b"{}"))
        self.tasks.append(task)
        return task

    def greedy_lane(self, name: str) -> None:
        """Take every slot of a function the moment it is free, as a lane with a backlog does."""

        def look() -> None:
            asyncio.get_running_loop().call_soon(take)

        def take() -> None:
            target = self.service.resolve(name)
            while self.lane_has_more and self.service.room(target) > 0:
                invocation = Invocation(request_id="lane", payload=b"{}", invoked_arn=target.invoked_arn)
                self.tasks.append(asyncio.create_task(self.service.run(self.service.begin(target), invocation)))

        self.service.on_free(look)
        take()


@pytest.fixture
async def world():
    made = World()
    yield made
    made.lane_has_more = False
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)


async def test_a_caller_goes_before_a_lane_that_always_has_more(world):
    world.greedy_lane("one")
    caller = world.call("one", "caller")
    await world.clock.advance(2.1)

    assert caller.done() and caller.result().is_ok
    assert world.runtime.asked("one")[:3] == ["lane", "caller", "lane"]
    assert world.runtime.running_max == 1


async def test_a_caller_does_not_wait_for_the_callers_of_another_function(world):
    world.call("one", "first")
    world.call("one", "second")
    await settle()
    world.call("other", "third")
    await settle()

    assert world.runtime.asked("other") == ["third"]


async def test_callers_have_their_turn_in_order(world):
    for number in range(2):
        world.call("one", f"{number}")
    await settle()
    await world.clock.advance(1.0)
    late = world.call("one", "late")
    await world.clock.advance(1.0)

    assert world.runtime.asked("one") == ["0", "1", "late"]
    assert not late.done()


async def test_a_caller_that_waits_too_long_is_told_why(world):
    world.runtime.duration_s["one"] = 10.0
    world.call("one", "first")
    await settle()
    second = world.call("one", "second")
    await world.clock.advance(1.6)

    assert isinstance(error := second.exception(), Throttled)
    assert error.reason == THROTTLE_RESERVED
    assert not world.service._waiting  # a storm of throttled callers leaves nothing behind


async def test_a_slot_granted_to_a_caller_who_has_left_is_given_back(world):
    world.call("one", "first")
    await settle()
    second = world.call("one", "second")
    await settle()
    world.service._runtime.running = 0  # the worker is free, the count of the first is not given back yet
    world.service.concurrency.end("one", draw=Draw.RESERVED)
    world.service._hand_out()
    second.cancel()  # in the pass in which it was granted
    await asyncio.gather(second, return_exceptions=True)

    assert world.service.concurrency.running("one") == 0
    assert world.service.room(world.service.resolve("one")) == 1
    world.service.concurrency.begin(world.service.resolve("one").function)  # what the first gives back


async def test_a_replay_waits_for_callers_and_lanes_and_leaves_nothing_behind(world):
    waits = True
    world.service.live_work(lambda: waits)
    replay = asyncio.create_task(world.service.invoke_background("one", request_id="replay", payload=b"{}"))
    world.tasks.append(replay)
    await world.clock.advance(30)
    assert world.runtime.asked() == []
    assert len(world.service._background) <= 1
    waits = False
    await world.clock.advance(2.1)

    assert replay.done() and replay.result().is_ok
    assert not world.service._background


async def test_a_stopped_function_answers_at_once(world):
    with pytest.raises(Throttled):
        await world.service.invoke("stopped", request_id="x", payload=b"{}")


async def test_a_function_that_is_not_there_is_named_as_it_was_asked_for():
    service = FunctionService(catalog=FunctionCatalog(), runtime=ScriptedRuntime(ManualClock()), clock=ManualClock())

    for target, named in (("gone:live", "gone:live"), ("gone", "gone:$LATEST")):
        with pytest.raises(FunctionNotFound, match=f"^Function not found: {re.escape(function_arn(named))}$"):
            service.resolve(target)
