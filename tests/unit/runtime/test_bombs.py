"""A function that multiplies its processes neither stops the daemon nor outlives its own end."""

import asyncio
import re
from pathlib import Path

import pytest

from bridge.core import limits
from bridge.core.invocation import ResultKind
from bridge.runtime import sandbox as confinement
from tests.harness import wait_until
from tests.unit.runtime.conftest import SPARE, own_pool

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]

GONE_S = 60
"""A bomb's hundreds of processes need the processor even to die, and other tests use it too."""


@pytest.fixture(params=["auto", "unmounted"])
async def runner(tmp_path, request):
    async with own_pool(tmp_path, workers_max=4, sandbox=request.param) as runner:
        yield runner


async def answers_until(runner, done):
    """Invoke another function until `done`, at least once; return how often it has answered."""
    count = 0
    while not (count and done.done()):
        assert await runner.value("app.echo", count, name="bystander", timeout_s=GONE_S) == count
        count += 1
        await asyncio.sleep(0.02)
    return count


async def test_a_bomb_that_spins_is_ended_while_others_are_answered(runner):
    await runner.value("app.echo", 1, name="bystander", timeout_s=GONE_S)
    task = asyncio.ensure_future(runner.run("attacks.spinning_bomb", timeout_s=2))

    assert await answers_until(runner, task)

    assert (await task).kind is ResultKind.FUNCTION_ERROR
    await wait_until(lambda: len(runner.processes()) <= SPARE + 2, GONE_S, "it is gone")


async def test_as_many_as_are_allowed_spin_to_the_timeout_and_no_longer(runner):
    await runner.value("app.echo", 1, name="bystander", timeout_s=GONE_S)
    task = asyncio.ensure_future(runner.run("attacks.spinning_bomb", 64, timeout_s=1))

    assert await answers_until(runner, task)

    assert (await task).error_type == "Sandbox.Timedout"
    await wait_until(lambda: len(runner.processes()) <= SPARE + 2, GONE_S, "they are gone")


async def test_a_tree_that_is_too_large_is_ended_at_once(runner, monkeypatch):
    monkeypatch.setattr(limits, "PROCESS_TREE_MAX", 24)

    result = await runner.run("attacks.multiply", 30, timeout_s=GONE_S, memory_mb=1024)

    assert result.error_type == "Runtime.ExitError"
    assert re.search(r"signal: killed \(more than \d+ processes\)$", result.error_message)


async def test_what_an_answered_invocation_leaves_behind_is_bounded_too(runner, monkeypatch):
    monkeypatch.setattr(limits, "PROCESS_TREE_MAX", 24)

    await runner.value("attacks.multiply", -30, timeout_s=GONE_S, memory_mb=1024)

    await wait_until(lambda: len(runner.processes()) > SPARE + 24, GONE_S, "it has multiplied")
    await wait_until(lambda: len(runner.processes()) <= SPARE, GONE_S, "the idle worker has been ended with its tree")
    assert runner.pool._count == 0
    assert await runner.value("app.echo", 1, name="bystander", timeout_s=GONE_S) == 1


async def test_workers_have_a_lower_priority_than_the_daemon(runner):
    nice, keeper, group = await runner.code(
        "import os; answer = [os.getpriority(os.PRIO_PROCESS, 0), os.getpriority(os.PRIO_PROCESS, os.getppid()), "
        "open('/proc/self/autogroup').read() if os.path.exists('/proc/self/autogroup') else '']"
    )

    assert nice == keeper + confinement.NICE
    if group and Path("/proc/self/autogroup").read_text(encoding="ascii").strip():
        assert group.split()[1:] == ["nice", str(confinement.NICE)]
    assert await runner.code("import os\ntry: os.setpriority(os.PRIO_PROCESS, 0, 0)\nexcept OSError: answer = 1") == 1
