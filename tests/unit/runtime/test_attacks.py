"""What a function does to its worker stays with that worker: P10 of the promises, and the bad results of a handler."""

import asyncio
import json
import os
import time

import psutil
import pytest

from bridge.core.invocation import ResultKind
from bridge.runtime.spawner import descendants
from bridge.util import telemetry
from tests.harness import wait_until
from tests.unit.runtime.conftest import SPARE

pytestmark = pytest.mark.asyncio(loop_scope="module")

BOMBER = f"bomber-{os.getpid()}"
"""A name, and so a user, that no other process of these tests has: what it holds is counted by user."""


def facts(runner):
    return {mechanism: in_force for mechanism, in_force, _ in runner.pool.sandbox_facts()}


@pytest.mark.slow
@pytest.mark.parametrize("handler", ["spin", "spin_in_c", "ignore_term"])
async def test_a_handler_that_hangs_is_ended(runner, handler):
    result = await runner.run(f"attacks.{handler}", timeout_s=1)

    assert result.error_type == "Sandbox.Timedout"
    await wait_until(lambda: len(runner.processes()) <= SPARE, description="the worker is gone")


@pytest.mark.slow
async def test_double_forked_descendants_are_ended(runner):
    marker = f"{30 + time.time() % 1:.9f}"

    await runner.run("attacks.double_fork", marker, timeout_s=1)

    def survivors():
        return [p.pid for p in psutil.process_iter(["cmdline"]) if marker in (p.info["cmdline"] or [])]

    await wait_until(lambda: not survivors(), description="no descendant survives")


@pytest.mark.slow
async def test_a_fork_bomb_is_bounded_and_ended(runner):
    task = asyncio.ensure_future(runner.run("attacks.fork_bomb", name=BOMBER, timeout_s=1))
    most = 0
    while not task.done():
        most = max(most, len(descendants(runner.pool._starter._zygote.pid)))
        await asyncio.sleep(0.1)

    assert (await task).kind is ResultKind.FUNCTION_ERROR
    assert most < 3000
    await wait_until(lambda: len(runner.processes()) <= SPARE, description="the bomb is gone")
    assert await runner.value("app.echo", 1) == 1


@pytest.mark.slow
@pytest.mark.parametrize("handler", ["eat_memory", "eat_memory_in_children"])
async def test_memory_is_bounded(runner, handler):
    result = await runner.run(f"attacks.{handler}")

    assert result.error_type == "Runtime.ExitError"
    assert result.error_message.endswith("Error: Runtime exited with error: signal: killed")
    assert result.memory_used_mb >= 128


async def test_open_files_are_bounded(runner):
    count, error = await runner.value("attacks.open_files")

    assert 900 < count <= 1024
    assert error == 24


async def test_tmp_is_bounded(runner):
    if not facts(runner)["mount namespace"]:
        return
    size, error = await runner.value("attacks.fill_tmp", 600 << 20, ephemeral_storage_mb=64, memory_mb=512)

    assert size <= 64 << 20
    assert error == 28


@pytest.mark.slow
async def test_a_flood_of_output_is_capped_and_the_daemon_stays_flat(runner):
    before = psutil.Process().memory_info().rss

    result = await runner.run("attacks.print_much", 256, timeout_s=200)

    assert result.kind is ResultKind.OK, result
    assert b"bytes of output dropped]" in result.log_tail
    assert psutil.Process().memory_info().rss - before < 32 << 20


async def test_garbage_on_descriptor_1_is_log(runner):
    result = await runner.run("app.run", {"code": "import os; os.write(1, bytes(range(256)) * 4); answer = 1"})

    assert result.payload == b"1"


@pytest.mark.parametrize("handler", ["garble", "answer_wrongly", "answer_in_no_time"])
async def test_a_worker_that_talks_nonsense_is_replaced(runner, handler):
    result = await runner.run(f"attacks.{handler}")

    assert result.kind is ResultKind.FUNCTION_ERROR
    assert result.error_type == "Runtime.ExitError"
    assert await runner.value("app.echo", 1) == 1


async def test_a_worker_that_closes_its_socket_is_replaced(runner):
    result = await runner.run("attacks.close_socket")

    assert result.error_type == "Runtime.ExitError"


async def test_a_mark_that_a_function_forges_harms_only_itself(runner):
    code = {"code": "import os; os.write(1, b'one\\n\\0bridge:begin:99\\0two\\n'); answer = 1"}

    result = await runner.run("app.run", code)

    assert b"one\n" in result.log_tail
    assert b"two\n" in result.log_tail


# --- what the sandbox keeps away ----------------------------------------------------------------------------------


async def test_the_level_in_force_is_a_metric(runner):
    level = runner.pool.sandbox_level()

    assert telemetry.REGISTRY.get_sample_value("bridge_sandbox_level_state", {"level": level}) == 1


async def test_every_worker_is_confined_as_the_facts_say(runner):
    status = await runner.code("answer = open('/proc/self/status').read()")

    fields = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
    assert fields["NoNewPrivs"] == "1"
    assert int(fields["CapEff"], 16) == 0
    assert (fields["Seccomp"] == "2") == facts(runner)["seccomp"]
    if facts(runner)["own user"]:
        assert fields["Uid"].split() == [str(runner.pool._starter.user_of("sample"))] * 4
        assert fields["Groups"].strip() == ""
    assert fields["CoreDumping"] == "0"


async def test_only_its_own_descriptors_are_open(runner):
    links = await runner.code(
        "import os; answer = {n: os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') if os.path.lexists(f'/proc/self/fd/{n}')}"
    )

    assert set(links) == {"0", "1", "2", "1000", "1001"}
    assert links["0"] == "/dev/null"


async def test_state_is_unreadable(runner, shared):
    state = runner.pool._starter._confinement.deny_paths[0]

    code = f"""
try:
    answer = open({str(state / "secret")!r}).read()
except OSError as error:
    answer = error.errno
"""
    assert await runner.code(code) in (2, 13)


async def test_code_is_read_only(runner):
    code = "import os\ntry:\n  open(os.environ['LAMBDA_TASK_ROOT'] + '/x', 'w')\nexcept OSError as e: answer = e.errno"

    assert await runner.code(code) in (13, 30)


@pytest.mark.parametrize(
    "call",
    [
        "libc.ptrace(0, 0, 0, 0)",
        "libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)",
        "libc.unshare(0x10000000)",
        "libc.syscall(321, 0, 0, 0)",
        "libc.syscall(250, 0, 0, 0)",
        "libc.syscall(425, 1, 0)",
    ],
)
async def test_system_calls_that_no_function_needs_are_refused(runner, call):
    if not facts(runner)["seccomp"] or os.uname().machine != "x86_64":
        return
    code = f"import ctypes; libc = ctypes.CDLL(None, use_errno=True); answer = [{call}, ctypes.get_errno()]"

    assert await runner.code(code) == [-1, 1]


async def test_no_other_process_is_visible(runner):
    if not facts(runner)["process namespace"]:
        return
    code = "import os; answer = sorted(int(n) for n in os.listdir('/proc') if n.isdigit())"

    assert await runner.code(code) == [1, 2]


async def test_threads_and_subprocesses_work(runner):
    code = """
import subprocess, sys, threading
seen = []
thread = threading.Thread(target=seen.append, args=(1,)); thread.start(); thread.join()
answer = [seen, subprocess.run([sys.executable, "-c", "print(2)"], capture_output=True, text=True).stdout]
"""
    assert await runner.code(code) == [[1], "2\n"]


@pytest.mark.slow
async def test_no_slot_is_lost_over_many_kills(runner):
    async def kill_one():
        result = await runner.run("app.signal_self", 9)
        assert result.error_type == "Runtime.ExitError"

    for _ in range(10):
        await asyncio.gather(*(kill_one() for _ in range(10)))

    await wait_until(lambda: not runner.pool._workers, description="all are gone")
    assert runner.pool._count == 0
    assert not any(fleet.waiting or fleet.starting for fleet in runner.pool._fleets.values())
    assert json.loads((await runner.run("app.echo", 1)).payload) == 1
