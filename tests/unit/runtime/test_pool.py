"""Which worker runs what: reuse, limits, fairness, frames sent ahead, code that changes, processes that vanish."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest

from bridge.core.errors import RuntimeUnavailable
from bridge.core.function import Interpreter
from bridge.core.invocation import ResultKind
from bridge.runtime import spawner
from bridge.runtime.logs import FunctionLogs
from bridge.runtime.pool import WorkerPool
from bridge.runtime.process import Worker
from bridge.runtime.spawner import ProcessFile, start_time
from bridge.util.clocks import SystemClock
from tests.harness import wait_until
from tests.unit.runtime.conftest import FUNCTIONS, Runner, own_pool

pytestmark = pytest.mark.asyncio(loop_scope="module")
PID = {"code": "import os; answer = os.environ['AWS_LAMBDA_LOG_STREAM_NAME']"}

WAIT = """
import socket
try:
    socket.create_connection(("127.0.0.1", {port})).recv(1)
except ConnectionError:
    pass
answer = "slow"
"""


async def in_order(*works):
    """Start the works one after the other and return the results."""
    tasks = []
    for work in works:
        tasks.append(asyncio.ensure_future(work))
        await asyncio.sleep(0)
    return await asyncio.gather(*tasks)


async def test_a_warm_worker_is_used_again(runner):
    assert (await runner.run("app.run", PID)).payload == (await runner.run("app.run", PID)).payload


async def test_one_event_at_a_time_per_worker(runner):
    results = await asyncio.gather(*(runner.run("app.sleep", 0.05) for _ in range(4)))

    assert len({result.log_stream for result in results}) == 4


async def test_workers_are_bounded_and_the_rest_waits(runner):
    most = 0

    async def one():
        nonlocal most
        result = await runner.run("app.sleep", 0.02)
        most = max(most, runner.pool._count)
        return result.log_stream

    streams = await asyncio.gather(*(one() for _ in range(40)))

    assert len(set(streams)) == most == 8


async def test_an_idle_worker_makes_room_for_another_function(runner):
    await asyncio.gather(*(runner.run("app.sleep", 0.05) for _ in range(8)))
    assert runner.pool._count == 8

    assert await runner.value("app.echo", 1, name="other") == 1
    assert runner.pool._count == 8


async def test_a_busy_function_yields_to_one_that_has_no_worker(runner):
    stop = asyncio.Event()

    async def keep_busy():
        while not stop.is_set():
            await runner.run("app.sleep", 0.02)

    busy = [asyncio.ensure_future(keep_busy()) for _ in range(20)]
    await wait_until(lambda: runner.pool._count == 8, description="all workers are busy")

    async with asyncio.timeout(60):
        assert await runner.value("app.echo", 1, name="other") == 1
    stop.set()
    await asyncio.gather(*busy)


async def test_free_slots(runner):
    version = runner.version("app.sleep")
    assert runner.pool.free_slots(version) > 0
    tasks = [asyncio.ensure_future(runner.run("app.sleep", 0.3)) for _ in range(8)]
    await asyncio.sleep(0)
    assert runner.pool.free_slots(version) == 0
    tasks.append(asyncio.ensure_future(runner.run("app.sleep", 0.01)))
    await asyncio.gather(*tasks)

    assert runner.pool.free_slots(version) == 8


async def test_on_free_is_called_when_a_slot_becomes_free(runner):
    calls = []
    runner.pool.on_free(lambda: calls.append(1))
    try:
        await runner.run("app.echo", 1)
        assert calls
    finally:
        runner.pool._callbacks.pop()


async def test_other_revisions_never_share_workers(runner):
    a = await runner.run("app.echo", 1, revision="a")
    b = await runner.run("app.echo", 1, revision="b")

    assert a.log_stream != b.log_stream


async def test_retire_ends_idle_workers_of_other_revisions(runner):
    old = await runner.run("app.echo", 1, revision="a")
    kept = await runner.run("app.echo", 1, revision="b")

    runner.pool.retire("sample", keep_revision="b")
    await wait_until(lambda: len(runner.pool._workers) == 1, description="the old one is gone")

    assert (await runner.run("app.echo", 1, revision="b")).log_stream == kept.log_stream
    assert (await runner.run("app.echo", 1, revision="a")).log_stream != old.log_stream


async def test_retire_lets_the_running_one_end_on_the_old_code(runner, tmp_path):
    (tmp_path / "app.py").write_text(
        "import os, time\n"
        "def f(e, c):\n"
        "  while not os.path.exists(os.environ['LAMBDA_TASK_ROOT'] + '/go'): time.sleep(0.01)\n"
        "  return 'old'\n"
    )
    tmp_path.chmod(0o755)
    running = asyncio.ensure_future(runner.value("app.f", code=str(tmp_path), revision="1"))
    await wait_until(lambda: any(w.is_ready for w in runner.pool._workers.values()), description="it runs")
    (tmp_path / "app.py").write_text("def f(e, c): return 'new'\n")
    runner.pool.retire("sample", keep_revision="2")

    assert await runner.value("app.f", code=str(tmp_path), revision="2") == "new"
    (tmp_path / "go").touch()
    assert await running == "old"
    await wait_until(lambda: len(runner.pool._workers) == 1, description="the old worker is gone")


async def test_a_cancel_kills_the_worker(runner):
    task = asyncio.ensure_future(runner.run("app.sleep", 30))
    await wait_until(lambda: any(w.is_ready for w in runner.pool._workers.values()), description="it runs")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    await wait_until(lambda: not runner.pool._workers, description="the worker is gone")
    assert await runner.value("app.echo", 1) == 1


async def test_a_cancel_while_waiting_runs_nothing(runner):
    running = [asyncio.ensure_future(runner.run("app.sleep", 0.1)) for _ in range(8)]
    waiting = asyncio.ensure_future(runner.run("app.fail", "never"))
    await asyncio.sleep(0)
    assert sum(len(fleet.waiting) for fleet in runner.pool._fleets.values()) == 1
    waiting.cancel()

    assert all(result.is_ok for result in await asyncio.gather(*running))
    assert runner.pool._count == 8


async def test_code_that_is_not_there(runner, tmp_path):
    with pytest.raises(RuntimeUnavailable):
        await runner.run("app.echo", 1, code=str(tmp_path / "nowhere"))

    assert runner.pool._count == 0


@pytest.mark.parametrize("step", ["make", "launch"])
async def test_a_mistake_of_ours_while_a_worker_starts_ends_its_invocation(runner, monkeypatch, capsys, step):
    def broken(*_):
        raise KeyError("mounts")

    freed = []
    runner.pool.on_free(lambda: freed.append(True))
    with monkeypatch.context() as patch:
        patch.setattr(runner.pool._starter, step, broken)
        async with asyncio.timeout(60):
            with pytest.raises(RuntimeUnavailable, match=r"KeyError\('mounts'\); see the daemon's log"):
                await runner.run("app.echo", 1)

    assert "worker_start_failed" in capsys.readouterr().out
    assert (runner.pool._count, sum(f.starting for f in runner.pool._fleets.values()), runner.pool._busy) == (
        0,
        0,
        set(),
    )
    assert freed
    assert await runner.value("app.echo", 2) == 2


async def test_a_mistake_of_ours_while_an_event_is_sent_is_an_unknown_outcome(runner, monkeypatch, capsys):
    def broken(worker, job, _now):
        worker.jobs.append(job)
        raise KeyError("frame")

    with monkeypatch.context() as patch:
        patch.setattr(Worker, "send", broken)
        async with asyncio.timeout(60):
            result = await runner.run("app.echo", 1)

    assert result.kind is ResultKind.UNKNOWN
    assert "worker_start_failed" in capsys.readouterr().out
    assert runner.pool._count == 0
    assert await runner.value("app.echo", 2) == 2


async def test_code_in_a_closed_folder(runner, tmp_path):
    closed = tmp_path / "closed"
    (closed / "code").mkdir(parents=True)
    (closed / "code" / "app.py").write_text("def f(e, c): return 1\n")
    (closed / "code").chmod(0o755)
    closed.chmod(0o700)

    assert await runner.value("app.f", code=str(closed / "code")) == 1


# --- frames sent ahead ------------------------------------------------------------------------------------------


async def warm_up(runner, handler="app.run", count=8):
    """Make the mean of a version's run time known, with every permitted worker started."""
    await asyncio.gather(*(runner.run("app.run", {"code": "import time; time.sleep(0.05)"}) for _ in range(count)))
    fleet = next(iter(runner.pool._fleets.values()))
    fleet.mean_s = 0.0001


async def test_short_events_are_sent_ahead_when_all_workers_are_busy(runner):
    await warm_up(runner)
    deepest = 0

    async def one(number):
        nonlocal deepest
        invocation = runner.invocation({"code": f"print('number {number}'); answer = {number}"}, ahead=True)
        result = await runner.run("app.run", invocation=invocation)
        deepest = max(deepest, *(len(w.jobs) for w in runner.pool._workers.values()))
        return invocation.request_id, result

    results = await asyncio.gather(*(one(n) for n in range(200)))

    assert deepest > 1
    for number, (request_id, result) in enumerate(results):
        assert json.loads(result.payload) == number
        lines = result.log_tail.decode().splitlines()
        assert lines[:2] == [f"START RequestId: {request_id} Version: $LATEST", f"number {number}"]
        assert lines[2] == f"END RequestId: {request_id}"


async def test_frames_behind_a_slow_one_come_back_and_run_once(runner, tmp_path, monkeypatch):
    monkeypatch.setattr("bridge.runtime.ahead.TAKE_BACK_S", 0.5)  # not before all of them are sent
    ledger = tmp_path / "ledger"
    pool = runner.pool
    await warm_up(runner)
    gate = socket.create_server(("127.0.0.1", 0))  # who connects gets no answer until it is closed
    wait = {"code": WAIT.format(port=gate.getsockname()[1])}
    blocked = [asyncio.ensure_future(runner.run("app.run", wait)) for _ in range(7)]
    await asyncio.sleep(0)
    first = runner.invocation(wait)
    tasks = [asyncio.ensure_future(runner.run("app.run", invocation=first))]
    await asyncio.sleep(0)
    next(iter(pool._fleets.values())).mean_s = 0.0001
    for number in range(6):
        quick = runner.invocation(
            {"code": f"import os; os.write(1, b'ran {number}\\n'); answer = {number}"}, ahead=True
        )
        tasks.append(asyncio.ensure_future(runner.run("app.run", invocation=quick)))
        await asyncio.sleep(0)
    ahead = sum(max(0, len(w.jobs) - 1) for w in pool._workers.values())
    await wait_until(lambda: all(len(w.jobs) <= 1 for w in pool._workers.values()), description="the frames came back")
    skipping = sum(w.skipping for w in pool._workers.values())
    gate.close()

    results = await asyncio.gather(*tasks)
    await asyncio.gather(*blocked)

    assert ahead == skipping == 6
    assert [json.loads(result.payload) for result in results] == ["slow", *range(6)]
    for number, result in enumerate(results[1:]):
        assert result.log_tail.count(b"ran ") == 1, ledger
        assert f"ran {number}\n".encode() in result.log_tail


async def test_a_dead_worker_gives_back_what_it_had_not_started(runner):
    pool = runner.pool
    await warm_up(runner)
    blocked = [asyncio.ensure_future(runner.run("app.run", {"code": "import time; time.sleep(0.2)"})) for _ in range(7)]
    await asyncio.sleep(0)
    dying = runner.invocation({"code": "import os; os._exit(5)"})
    tasks = [asyncio.ensure_future(runner.run("app.run", invocation=dying))]
    for number in range(3):
        quick = runner.invocation({"code": f"answer = {number}"}, ahead=True)
        tasks.append(asyncio.ensure_future(runner.run("app.run", invocation=quick)))
    await asyncio.sleep(0)
    assert max(len(w.jobs) for w in pool._workers.values()) > 1

    results = await asyncio.gather(*tasks)
    await asyncio.gather(*blocked)

    assert results[0].error_message.endswith("exit status 5")
    assert [json.loads(result.payload) for result in results[1:]] == [0, 1, 2]


async def test_large_and_small_events_sent_ahead_arrive_whole(runner):
    """A large one is written in parts, beside small ones of the same loop pass."""
    await warm_up(runner)
    texts = ["x" * size for size in (1, 40_000, 2, 300_000, 16_300, 16_500, 3)] * 6

    async def one(text):
        event = {"code": "answer = len(event['text'])", "text": text}
        return await runner.run("app.run", invocation=runner.invocation(event, ahead=True))

    results = await asyncio.gather(*map(one, texts))

    assert [len(text) for text in texts] == [json.loads(result.payload) for result in results]


async def test_synchronous_events_are_never_sent_ahead(runner):
    await warm_up(runner)

    async def one():
        result = await runner.run("app.run", {"code": "answer = 1"})
        assert all(len(w.jobs) <= 1 for w in runner.pool._workers.values())
        return result

    await asyncio.gather(*(one() for _ in range(50)))


# --- processes that vanish --------------------------------------------------------------------------------------


async def test_the_zygotes_end_is_an_unknown_outcome_and_it_starts_again(tmp_path):
    async with own_pool(tmp_path, workers_max=2) as runner:
        running = asyncio.ensure_future(runner.run("app.sleep", 30))
        await wait_until(lambda: any(w.is_ready for w in runner.pool._workers.values()), description="it runs")
        os.kill(runner.pool._starter._zygote.pid, signal.SIGKILL)

        assert (await running).kind is ResultKind.UNKNOWN
        assert await runner.value("app.echo", 1) == 1


async def test_an_interpreter_that_is_uninstalled_stops_no_other_functions_when_the_zygote_starts_again(tmp_path):
    folder = tmp_path / "python"
    (folder / "bin").mkdir(parents=True)
    other = Interpreter(program=str(folder / "bin" / "python3"), version="3.12", prefix=str(folder))
    async with own_pool(tmp_path, workers_max=2, interpreters=[other]) as runner:
        before = (runner.pool.sandbox_level(), runner.pool._starter._mounts)
        shutil.rmtree(folder)
        os.kill(runner.pool._starter._zygote.pid, signal.SIGKILL)
        await wait_until(lambda: not runner.pool._starter._zygote.is_alive, description="its end is known")

        assert await runner.value("app.echo", 1) == 1
        assert (runner.pool.sandbox_level(), runner.pool._starter._mounts) == before


async def test_a_new_zygote_that_confines_by_less_is_told_and_measured(tmp_path, capsys):
    async with own_pool(tmp_path, workers_max=2) as runner:
        starter = runner.pool._starter
        had = {"mount namespace", "process namespace"} & starter._in_force()
        assert await runner.value("app.echo", 1) == 1

        async def again(sandbox):
            starter._sandbox = sandbox
            os.kill(starter._zygote.pid, signal.SIGKILL)
            await wait_until(lambda: not starter._zygote.is_alive, description="its end is known")
            assert await runner.value("app.echo", 2) == 2
            return capsys.readouterr().out

        level = runner.pool.sandbox_level()
        told = await again("unmounted")
        assert [one for one in sorted(had) if one not in told] == []
        assert ("sandbox_weaker" in told) == bool(had)
        assert runner.pool.sandbox_level() not in {"namespaces", "cgroup"}
        assert "sandbox_weaker" not in await again("unmounted")
        assert "sandbox_weaker" not in await again("auto")
        assert runner.pool.sandbox_level() == level


async def test_a_new_zygote_knows_nothing_of_the_workers_of_the_former_one(tmp_path):
    async with own_pool(tmp_path, workers_max=2) as runner:
        starter = runner.pool._starter
        assert await runner.value("app.echo", 1) == 1
        (former,) = starter._living
        starter._extended[former] = runner.pool._workers[former]
        os.kill(starter._zygote.pid, signal.SIGKILL)
        await wait_until(lambda: not runner.pool._workers, description="its end is known")

        assert await runner.value("app.echo", 2) == 2
        assert (list(starter._living), starter._extended) == (list(runner.pool._workers), {})
        assert former not in starter._living
    assert not (tmp_path / "run" / "processes").exists()


@pytest.mark.parametrize("op", ["gone", "failed", "raised"])
async def test_a_worker_that_ends_while_we_attach_to_it_is_not_told_of_its_end(tmp_path, monkeypatch, op):
    async with own_pool(tmp_path, workers_max=2) as runner:
        starter = runner.pool._starter

        async def attach(worker, *_):
            if op == "raised":
                raise OSError("no descriptors left")
            starter._report({"op": op, "id": worker.id, "error": "as told"})
            runner.pool._finish(worker)

        monkeypatch.setattr(starter, "_attach", attach)
        version = runner.version("app.echo")
        runner.pool._fleet(version).has_extensions = True

        with pytest.raises(RuntimeUnavailable):
            async with asyncio.timeout(60):
                await runner.pool.invoke(version, runner.invocation(1))
        assert starter._extended == {}


async def test_the_process_file_never_comes_to_name_who_got_the_number_later(tmp_path, monkeypatch):
    times = {10: 100, 11: 110, 12: 120}
    monkeypatch.setattr(spawner, "PROCESS_LINES_MAX", 2)
    monkeypatch.setattr(spawner, "start_time", times.get)
    file = ProcessFile(tmp_path / "processes")
    file.add(10, living=list)
    file.add(11, living=list)
    times[10] = 999  # it ended, and we were not told

    file.add(12, living=lambda: [10, 12, 13])

    lines = [line.split()[1:] for line in (tmp_path / "processes").read_text().splitlines()]
    assert lines == [["10", "100"], ["12", "120"]]
    file.clear()
    assert not (tmp_path / "processes").exists()


async def test_leftovers_of_a_former_daemon_are_ended(tmp_path):
    orphan = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        former = ProcessFile(tmp_path / "processes")
        former.add(orphan.pid, living=list)
        with (tmp_path / "processes").open("a") as file:
            file.write(f"another-boot {bystander.pid} {start_time(bystander.pid)}\nnonsense\n")
            file.write(f"{former._boot} {bystander.pid} {start_time(bystander.pid) + 1}\n")

        assert await ProcessFile(tmp_path / "processes").end_leftovers() == 1
        assert orphan.wait(60) == -9
        assert bystander.poll() is None
    finally:
        orphan.kill(), bystander.kill()
        orphan.wait(), bystander.wait()


DAEMON = """
import asyncio, pathlib, sys
sys.path.insert(0, {root!r})
from tests.unit.runtime.conftest import Runner, FUNCTIONS
from bridge.runtime.logs import FunctionLogs
from bridge.runtime.pool import WorkerPool
from bridge.util.clocks import SystemClock
async def main():
    folder = pathlib.Path({folder!r})
    logs = FunctionLogs(folder / "logs")
    pool = WorkerPool(run_folder=folder / "run", logs=logs, clock=SystemClock(), sandbox={sandbox!r}, workers_max=4)
    await pool.open()
    runner = Runner(pool, logs)
    task = asyncio.ensure_future(runner.run("attacks.double_fork", {marker!r}, timeout_s=60))
    while not any(w.is_ready for w in pool._workers.values()):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
    print("running", flush=True)
    await task
asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("sandbox", ["auto", "basic"])
async def test_workers_end_with_a_killed_daemon(tmp_path, sandbox):
    marker = f"{40 + time.time() % 1:.9f}"
    tmp_path.chmod(0o755)
    code = DAEMON.format(root=os.getcwd(), folder=str(tmp_path), sandbox=sandbox, marker=marker)
    daemon = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert daemon.stdout.readline() == b"running\n"

    def survivors():
        return [p.pid for p in psutil.process_iter(["cmdline"]) if marker in " ".join(p.info["cmdline"] or [])]

    await wait_until(lambda: len(survivors()) >= 2, description="it has forked twice")
    daemon.kill()
    daemon.wait()
    daemon.stdout.close()

    await wait_until(lambda: not survivors(), description="everything ended")


async def test_close_ends_what_runs_at_the_deadline(tmp_path):
    logs = FunctionLogs(tmp_path / "logs")
    clock = SystemClock()
    pool = WorkerPool(run_folder=tmp_path / "run", logs=logs, clock=clock, workers_max=3)
    await pool.open()
    runner = Runner(pool, logs)
    quick = asyncio.ensure_future(runner.run("app.sleep", 0.1))
    other = asyncio.ensure_future(runner.run("app.sleep", 60, timeout_s=60))
    slow = asyncio.ensure_future(runner.run("app.sleep", 60, timeout_s=60))
    await wait_until(lambda: sum(w.is_ready for w in pool._workers.values()) == 3, description="they run")
    await quick
    third = asyncio.ensure_future(runner.run("app.sleep", 60))
    await asyncio.sleep(0)
    waiting = asyncio.ensure_future(runner.run("app.sleep", 60))

    await pool.close(clock.monotonic() + 0.4)
    await pool.close()
    logs.close()

    assert (await quick).is_ok
    assert {(await task).kind for task in (slow, other, third)} == {ResultKind.UNKNOWN}
    with pytest.raises(RuntimeUnavailable):
        await waiting
    with pytest.raises(RuntimeUnavailable):
        await runner.run("app.echo", 1)


async def test_idle_workers_end(tmp_path):
    async with own_pool(tmp_path, workers_max=2, idle_s=0.1) as runner:
        assert await runner.value("app.echo", 1) == 1
        await wait_until(lambda: not runner.pool._workers, description="it ended")
        assert await runner.value("app.echo", 1) == 1


@pytest.mark.slow
@pytest.mark.parametrize("sandbox", ["auto", "unmounted", "basic"])
async def test_code_within_the_state_folder(tmp_path, sandbox):
    """Packages of functions that the API made are there, and nothing else of it is read."""
    state = tmp_path / "state"
    store = state / "shared" / "packages"
    shutil.copytree(FUNCTIONS, store / "key" / "code")
    state.chmod(0o700)
    (state / "secret").write_text("the state")
    async with own_pool(state, workers_max=2, sandbox=sandbox, deny_paths=[state], code_store=store) as runner:
        facts = {mechanism: in_force for mechanism, in_force, _ in runner.pool.sandbox_facts()}
        code = f"try: answer = len(open({str(state / 'secret')!r}).read())\nexcept OSError as error: answer = 0"
        read = await runner.value("app.run", {"code": code}, code=str(store / "key" / "code"))
        assert (read == 0) == bool(facts.get("landlock") or facts["mount namespace"])


@pytest.mark.slow
@pytest.mark.parametrize("sandbox", ["unmounted", "basic"])
async def test_without_namespaces(tmp_path, sandbox):
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / "secret").write_text("the state")
    async with own_pool(state, workers_max=2, sandbox=sandbox, deny_paths=[state]) as runner:
        facts = {mechanism: in_force for mechanism, in_force, _ in runner.pool.sandbox_facts()}
        assert facts["no new privileges"]
        assert facts["limits"]
        assert not facts["mount namespace"]
        assert facts["seccomp"] == (sandbox == "unmounted")
        assert runner.pool.sandbox_level() == ("landlock" if facts.get("landlock") else sandbox)
        seen = await runner.value("app.who")
        assert seen["folder"] == seen["environment"]["LAMBDA_TASK_ROOT"]
        assert await runner.value("app.keep_file", "kept") == []
        failed = json.loads((await runner.run("app.fail", "x", revision="2")).payload)
        assert failed["stackTrace"][0].startswith('  File "/var/task/app.py", line ')
        if facts.get("landlock"):
            code = f"try: open({str(state / 'secret')!r})\nexcept OSError as error: answer = error.errno"
            assert await runner.code(code) == 13
        marker = f"{50 + time.time() % 1:.9f}"
        result = await runner.run("attacks.double_fork", marker, timeout_s=1)
        assert result.error_type == "Sandbox.Timedout"

        def survivors():
            return [p.pid for p in psutil.process_iter(["cmdline"]) if marker in (p.info["cmdline"] or [])]

        await wait_until(lambda: not survivors(), description="no descendant survives")
