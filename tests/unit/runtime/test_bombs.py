"""A function that multiplies its processes neither stops the daemon nor outlives its own end."""

import asyncio
import re
import time
from pathlib import Path

import pytest

from bridge.core import limits
from bridge.core.invocation import ResultKind
from bridge.runtime import sandbox as confinement
from bridge.runtime.logs import FunctionLogs
from bridge.runtime.pool import WorkerPool
from bridge.util.clocks import SystemClock
from tests.harness import wait_until
from tests.unit.runtime.conftest import SPARE, Runner

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]

GONE_S = 1.0
"""How long a bomb may outlive its timeout and then its result, and anybody else wait for an answer meanwhile."""
BESIDE = 4
"""The measured second is a moment's: the other tests that run beside this one take what they need at any time."""


@pytest.fixture(params=["auto", "unmounted"])
async def runner(tmp_path, request):
    logs = FunctionLogs(tmp_path / "logs")
    pool = WorkerPool(run_folder=tmp_path / "run", logs=logs, clock=SystemClock(), workers_max=4, sandbox=request.param)
    await pool.open()
    try:
        yield Runner(pool, logs)
    finally:
        await pool.close()
        logs.close()


async def second(runner):
    """Return how long a second of a worker's time takes on this machine now, while others use it too."""
    code = """
import time
began, used = time.monotonic(), time.process_time()
while time.monotonic() < began + 0.3: pass
answer = (time.process_time() - used) / (time.monotonic() - began)
"""
    share = await runner.code(code, name="bystander-too", timeout_s=10)
    return BESIDE * GONE_S / max(0.05, min(1.0, share))


async def slowest_answer(runner, until):
    """Invoke another function until `until` is done; return how long the slowest answer took."""
    slowest = 0.0
    while not until.done():
        began = time.monotonic()
        assert await runner.value("app.echo", 1, name="bystander", timeout_s=10) == 1
        slowest = max(slowest, time.monotonic() - began)
        await asyncio.sleep(0.02)
    return slowest


async def test_a_bomb_that_spins_is_gone_within_a_second_of_its_timeout(runner):
    await runner.value("app.echo", 1, name="bystander", timeout_s=10)
    second_s = await second(runner)
    task = asyncio.ensure_future(runner.run("attacks.spinning_bomb", timeout_s=2))

    slowest = await slowest_answer(runner, task)

    result = await task
    assert result.kind is ResultKind.FUNCTION_ERROR
    assert result.duration_ms < (2 + second_s) * 1000
    await wait_until(lambda: len(runner.processes()) <= SPARE + 4, second_s, "it is gone")
    assert slowest < second_s


async def test_as_many_as_are_allowed_spin_to_the_timeout_and_no_longer(runner):
    await runner.value("app.echo", 1, name="bystander", timeout_s=10)
    second_s = await second(runner)
    task = asyncio.ensure_future(runner.run("attacks.spinning_bomb", 64, timeout_s=1))

    slowest = await slowest_answer(runner, task)

    result = await task
    assert result.error_type == "Sandbox.Timedout"
    assert result.duration_ms < (1 + second_s) * 1000
    await wait_until(lambda: len(runner.processes()) <= SPARE + 4, second_s, "they are gone")
    assert slowest < second_s


async def test_a_tree_that_is_too_large_is_ended_at_once(runner, monkeypatch):
    monkeypatch.setattr(limits, "PROCESS_TREE_MAX", 24)

    result = await runner.run("attacks.multiply", 30, timeout_s=10, memory_mb=1024)

    assert result.error_type == "Runtime.ExitError"
    assert re.search(r"signal: killed \(more than \d+ processes\)$", result.error_message)
    assert result.duration_ms < 8_000


async def test_what_an_answered_invocation_leaves_behind_is_bounded_too(runner, monkeypatch):
    monkeypatch.setattr(limits, "PROCESS_TREE_MAX", 24)

    await runner.value("attacks.multiply", -30, timeout_s=10, memory_mb=1024)

    await wait_until(lambda: len(runner.processes()) > SPARE + 24, 5, "it has multiplied")
    await wait_until(lambda: len(runner.processes()) <= SPARE, 5, "the idle worker has been ended with its tree")
    assert runner.pool._count == 0
    assert await runner.value("app.echo", 1, name="bystander", timeout_s=10) == 1


async def test_workers_have_a_lower_priority_than_the_daemon(runner):
    nice, keeper, group = await runner.code(
        "import os; answer = [os.getpriority(os.PRIO_PROCESS, 0), os.getpriority(os.PRIO_PROCESS, os.getppid()), "
        "open('/proc/self/autogroup').read() if os.path.exists('/proc/self/autogroup') else '']"
    )

    assert nice == keeper + confinement.NICE
    if group and Path("/proc/self/autogroup").read_text(encoding="ascii").strip():
        assert group.split()[1:] == ["nice", str(confinement.NICE)]
    assert await runner.code("import os\ntry: os.setpriority(os.PRIO_PROCESS, 0, 0)\nexcept OSError: answer = 1") == 1
