"""What a program behind the Runtime API does to its worker stays with that worker: P10 for Node.js and what is compiled.

The same attacks in Python are in test_attacks.py.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator

import psutil
import pytest
import pytest_asyncio

from bridge.core.invocation import InvocationResult, ResultKind
from bridge.runtime.spawner import descendants
from tests.harness import wait_until
from tests.unit.runtime import attackers
from tests.unit.runtime.conftest import LONG_S, SPARE, Runner, own_pool
from tests.unit.runtime.test_node import installed

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]
FLAT_BYTES = 32 << 20
MEGABYTES = 64


class Attacks:
    """Invokes the attacker of one kind; each test begins and ends without a worker."""

    def __init__(self, runner: Runner, kind: str, code: str) -> None:
        self.runner = runner
        self.kind = kind
        runtime = {"runtime": "provided.al2023"}
        if kind == "node":
            runtime = {"runtime": "nodejs22.x", "interpreter": installed()}
        self._function = {"code": code, "name": f"attacker-{kind}-{os.getpid()}", "memory_mb": 256, **runtime}

    async def run(self, name: str, number: int = 0, **fields: object) -> InvocationResult:
        return await self.runner.run("index.handler", [name, number], **{**self._function, **fields})

    async def value(self, name: str, number: int = 0, **fields: object) -> list[int]:
        result = await self.run(name, number, **fields)
        assert result.kind is ResultKind.OK, result
        return json.loads(result.payload)

    async def end(self, *, rss: int) -> None:
        """Check that it is over: nothing survives, the daemon has not grown, the next invocation finds all as ever."""
        await wait_until(lambda: len(self.runner.processes()) <= SPARE, description="no process of the attack survives")
        assert psutil.Process().memory_info().rss - rss < FLAT_BYTES
        assert await self.value("echo", 7, timeout_s=LONG_S) == [7]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["node", "native"])
async def attacker(request, tmp_path_factory) -> AsyncIterator[Attacks]:
    folder = tmp_path_factory.mktemp(request.param)
    code = getattr(attackers, request.param)(folder / "code")
    folder.chmod(0o755)
    async with own_pool(folder / "state", workers_max=4, interpreters=[installed()]) as runner:
        yield Attacks(runner, request.param, code)


@pytest_asyncio.fixture(loop_scope="module")
async def attacks(attacker) -> AsyncIterator[Attacks]:
    assert await attacker.value("echo", 7) == [7]
    await attacker.runner.clear()
    yield attacker
    await attacker.runner.clear()


def rss():
    return psutil.Process().memory_info().rss


@pytest.mark.parametrize("attack", ["spin", "ignore_term"])
async def test_what_hangs_is_ended(attacks, attack):
    before = rss()

    result = await attacks.run(attack, timeout_s=1)

    assert result.error_type == "Sandbox.Timedout"
    await attacks.end(rss=before)


async def test_double_forked_descendants_are_ended(attacks):
    before, marker = rss(), 100_000 + os.getpid()

    result = await attacks.run("double_fork", marker, timeout_s=1)

    assert result.error_type == "Sandbox.Timedout"

    def survivors():
        return [p.pid for p in psutil.process_iter(["cmdline"]) if str(marker) in (p.info["cmdline"] or [])]

    await wait_until(lambda: not survivors(), description="no descendant survives")
    await attacks.end(rss=before)


async def test_a_fork_bomb_is_bounded_and_ended(attacks):
    before, most = rss(), 0
    task = asyncio.ensure_future(attacks.run("fork_bomb", timeout_s=2))
    while not task.done():
        most = max(most, len(descendants(attacks.runner.pool._starter._zygote.pid)))
        await asyncio.sleep(0.1)

    assert (await task).kind is ResultKind.FUNCTION_ERROR
    assert most < 3000
    await attacks.end(rss=before)


async def test_memory_is_bounded(attacks):
    before = rss()

    result = await attacks.run("eat_memory")

    assert result.error_type == "Runtime.ExitError"
    assert result.error_message.endswith("Error: Runtime exited with error: signal: killed")
    assert result.memory_used_mb == 256
    await attacks.end(rss=before)


async def test_tmp_is_bounded(attacks):
    facts = {mechanism: in_force for mechanism, in_force, _ in attacks.runner.pool.sandbox_facts()}
    if not facts["mount namespace"]:
        return
    before = rss()

    size, error = await attacks.value("fill_tmp", ephemeral_storage_mb=64)

    assert 0 < size <= 64 << 20
    assert error == 28
    await attacks.runner.clear()
    await attacks.end(rss=before)


async def test_a_flood_of_output_is_capped(attacks):
    before = rss()

    result = await attacks.run("print_much", MEGABYTES, timeout_s=200)

    assert result.kind is ResultKind.OK, result
    assert b"bytes of output dropped]" in result.log_tail
    await attacks.runner.clear()
    await attacks.end(rss=before)


async def test_garbage_on_descriptor_1_is_log(attacks):
    assert await attacks.value("garbage") == [1]
    assert await attacks.value("echo", 8) == [8]


async def test_the_daemon_is_out_of_reach(attacks):
    """Neither its memory nor a signal, nor (where the language has it) ptrace."""
    assert set(await attacks.value("reach", os.getpid())) == {-1}
