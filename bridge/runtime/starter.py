"""Starts worker processes: the zygote, scratch spaces, what confines them, and what a worker needs to begin."""

import asyncio
import contextlib
import os
import shutil
import socket
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from bridge.core.errors import RuntimeUnavailable
from bridge.core.function import Interpreter
from bridge.core.ports import Clock
from bridge.runtime import (
    cgroup_home,
    cgroups,
    commands,
    confined,
    endings,
    environment,
    frames,
    mounts,
    networks,
    results,
    users,
)
from bridge.runtime.credentials import WorkerCredentials
from bridge.runtime.fleet import Fleet
from bridge.runtime.landlock import NOTHING_LEFT
from bridge.runtime.logs import FunctionLogs, stream_name
from bridge.runtime.networks import Network, Networks
from bridge.runtime.process import Owner, Worker
from bridge.runtime.sandbox import Fact
from bridge.runtime.spawner import ProcessFile, Zygote
from bridge.util import telemetry

log = structlog.get_logger("bridge.runtime")

UNMOUNTED: Final = "unmounted"
"""Everything but namespaces: what `auto` falls back to."""
PROBE_MAX_S: Final = 30.0
PROBES: Final = {0: confined.PYTHON, -1: confined.COMMAND}
"""Ids of the workers that only tell what confines them, and their kind."""
EXTENSIONS_END_S: Final = 2.5
"""A worker that tells its extensions of its end has ended by itself until then (`extensions.SHUTDOWN_MAX_S`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """What workers may use, see and reach."""

    run_folder: Path
    """Folder of ours for scratch spaces and the list of our processes."""
    sandbox: str
    """`auto` (everything the kernel allows), `unmounted` (auto without namespaces and control groups) or `basic`."""
    packages: Path | None
    """Folder that comes last on sys.path (boto3)."""
    deny_paths: Sequence[Path]
    """Files and folders that functions must not read."""
    code_store: Path | None
    """Folder within `deny_paths` that holds code of functions: what is below may be read (of the others' too, where
    only Landlock keeps functions apart)."""
    deny_ports: Sequence[int]
    """TCP ports that functions must not connect to."""
    region: str
    """AWS_REGION of functions that name none."""
    interpreters: Collection[Interpreter] = ()
    """Which run functions beside the daemon's own Python."""


class Starter:
    """Owner of the zygote. `on_report` hears of workers, `on_end` of the zygote's own end."""

    def __init__(
        self,
        confinement: Confinement,
        *,
        logs: FunctionLogs,
        clock: Clock,
        on_report: Callable[[dict[str, Any]], None],
        on_end: Callable[[], None],
    ) -> None:
        self._confinement = confinement
        self._scratch_default = Path(os.path.realpath(confinement.run_folder)) / "scratch"
        self._scratch = self._scratch_default
        packages = confinement.packages
        self._packages = None if packages is None else Path(os.path.realpath(packages))
        self._denied = [os.path.realpath(path) for path in confinement.deny_paths]
        self._sandbox = confinement.sandbox
        self._logs = logs
        self._clock = clock
        self._on_report = on_report
        self._processes = ProcessFile(confinement.run_folder / "processes")
        self._zygote = Zygote(on_report=self._report, on_end=on_end)
        self._lock = asyncio.Lock()
        self.networks = Networks(confinement.run_folder)
        self._users = users.Users(confinement.run_folder / "users")
        self._mounts = False
        self._own_users = False
        self._process_namespaces = False
        self._opt = False
        """Workers see their layers at /opt; else under the path that they really have."""
        self._ids = 0
        self._slots = 0
        self._probe_answers: dict[int, asyncio.Future[list[Fact]]] = {}
        self._home: cgroup_home.Home | None = None
        """Where workers have their control groups; None: nowhere."""
        self._no_home = ""
        self._living: dict[int, int] = {}
        """Process id of the keeper by worker id."""
        self._zygote_facts: list[Fact] = []
        self.confined = confined.Confined()
        self._measured = frozenset[str]()
        """What the zygote had in force when `confined` was measured."""
        self._extended: dict[int, Worker] = {}
        """Those with extensions, which are told of their end."""
        self._none_extended = asyncio.Event()
        self.credentials: WorkerCredentials | None = None
        """What workers are given of their function's role; None: nothing."""

    def user_of(self, name: str) -> int:
        """Return the user id of a function's workers, where they have one of their own."""
        return self._users.of(name)

    async def open(self) -> None:
        """End leftovers of a former daemon, start the zygote, find out what confines workers.

        Raises:
            RuntimeUnavailable: the zygote did not start, or no worker can be started.
        """
        self._confinement.run_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        await self._processes.end_leftovers()
        await self.networks.open()
        await asyncio.to_thread(self._find_home)
        while True:
            try:
                await self._open_zygote()
                await self._measure()
            except RuntimeUnavailable as error:
                if self._sandbox != "auto":
                    raise
                # What the kernel says yes to one by one may still not work together: go on with less, and say so.
                log.warning("sandbox_degraded", error=str(error))
                await self._zygote.close()
                if self._home is None:
                    self._sandbox = UNMOUNTED
                else:
                    await self._leave_home(str(error))
            else:
                return

    def _find_home(self) -> None:
        if self._sandbox != "auto":
            self._no_home = f"sandbox = {self._sandbox}"
            return
        try:
            self._home = cgroup_home.find(self._confinement.run_folder)
        except OSError as error:
            # A path in it need not be UTF-8; what is shown must be.
            self._no_home = str(error).encode(errors="backslashreplace").decode()

    async def _leave_home(self, why: str) -> None:
        home, self._home, self._no_home = self._home, None, why
        if home is not None:
            await asyncio.to_thread(home.remove)

    async def _open_zygote(self) -> None:
        # The workers of one that has ended ended with it, and nobody reports that of each.
        self._living.clear()
        self._extended.clear()
        self._none_extended.set()
        await asyncio.to_thread(shutil.rmtree, self._scratch, ignore_errors=True)
        self._scratch = self._scratch_default
        await asyncio.to_thread(shutil.rmtree, self._scratch, ignore_errors=True)
        self._scratch.mkdir(mode=0o711)
        groups: list[int] = []
        if self._home is not None:
            await asyncio.to_thread(self._home.clear)
            groups = self._home.descriptors()
        try:
            await self._greet(groups)
        finally:
            for descriptor in groups:
                os.close(descriptor)

    async def _open_again(self) -> None:
        """Start the zygote after its end. What confines workers is measured anew where that is not what it was."""
        await self._zygote.close()
        await self._open_zygote()
        if self._measured == self._in_force():
            return
        if lost := sorted(self._measured - self._in_force()):
            details = {fact.mechanism: fact.detail for fact in self._zygote_facts}
            log.error("sandbox_weaker", lost=lost, why=[details.get(one, "") for one in lost])
        telemetry.SANDBOX_LEVEL.labels(level=self.confined.level).set(0)
        try:
            await self._measure()
        except RuntimeUnavailable:
            await self._zygote.close()  # the next launch tries again
            raise
        finally:
            telemetry.SANDBOX_LEVEL.labels(level=self.confined.level).set(1)

    async def _measure(self) -> None:
        self.confined.measured(await self._probe())
        self._measured = self._in_force()

    def _in_force(self) -> frozenset[str]:
        """Return what all workers have of the zygote, as it says, and what has nothing left to do."""
        told = [fact.mechanism for fact in self._zygote_facts if fact.in_force or fact.detail == NOTHING_LEFT]
        return frozenset((*told, "own user") if self._own_users else told)

    async def _greet(self, groups: Sequence[int]) -> None:
        """Tell the zygote what it is to do, and take what it has got."""
        hello = await self._zygote.open(
            {
                "sandbox": self._sandbox,
                "scratch": str(self._scratch),
                "needed": environment.interpreter_paths(self._confinement.interpreters),
                "packages": None if self._packages is None else str(self._packages),
                "denied": self._denied,
                "code_store": None if self._confinement.code_store is None else str(self._confinement.code_store),
                "denied_ports": list(self._confinement.deny_ports),
                "group_home": "" if self._home is None else self._home.folders[0].name,
            },
            groups=groups,
        )
        self._processes.add(self._zygote.pid, living=self._pids)
        self._mounts = hello["mounts"]
        self._own_users = hello["own_users"]
        self._process_namespaces = hello["process_namespaces"]
        self._opt = hello["opt"]
        self._scratch = Path(hello["scratch"])
        self._zygote_facts = _facts(hello["facts"])
        if self._home is None or not self._mounts:
            detail = self._no_home or cgroups.NOT_THERE
            self._zygote_facts.append(Fact(mechanism="control group", in_force=False, detail=detail))

    def _pids(self) -> list[int]:
        return [self._zygote.pid, *self._living.values()]

    async def _probe(self) -> dict[str, list[Fact]]:
        """Start workers that only report what confines them, one of each kind."""
        self._probe_answers = {number: asyncio.get_running_loop().create_future() for number in PROBES}
        pipes = [os.pipe() for _ in range(3)]
        try:
            for number, kind in PROBES.items():
                request = self._request(
                    number,
                    code=str(Path(__file__).parent),
                    slot=self._probe_slot(number),
                    user=users.FIRST,
                    memory_mb=128,
                    scratch_mb=1,
                )
                request |= {"probe": True, "runtime_api": kind == confined.COMMAND}
                self._zygote.start(request, [write for _, write in pipes])
            async with asyncio.timeout(PROBE_MAX_S):
                found = await asyncio.gather(*self._probe_answers.values())
            kinds = zip(PROBES.values(), found, strict=True)
            return {kind: [*self._zygote_facts, *facts] for kind, facts in kinds}
        except TimeoutError:
            raise RuntimeUnavailable("no worker could be started") from None
        finally:
            self._probe_answers = {}
            for pair in pipes:
                os.close(pair[0])
                os.close(pair[1])

    def _report(self, report: dict[str, Any]) -> None:
        worker_id = report["id"]
        if worker_id in PROBES:
            self._probed(report)
            return
        if report["op"] == "started":
            self._living[worker_id] = report["pid"]
            self._processes.add(report["pid"], living=self._pids)
        elif report["op"] == "gone":
            self._living.pop(worker_id, None)
            self._not_extended(worker_id)
        elif report["op"] == "failed":
            self._not_extended(worker_id)
        self._on_report(report)

    def _not_extended(self, worker_id: int) -> None:
        self._extended.pop(worker_id, None)
        if not self._extended:
            self._none_extended.set()

    def _probed(self, report: dict[str, Any]) -> None:
        answer = self._probe_answers.get(report["id"])
        if report["op"] == "gone":
            self.drop_slot(self._probe_slot(report["id"]))
        if answer is None or answer.done():
            return
        if report["op"] == "probed":
            answer.set_result(_facts(report["facts"]))
        elif report["op"] == "failed":
            answer.set_exception(RuntimeUnavailable(f"no worker could be started: {report['error']}"))

    # --- workers ----------------------------------------------------------------------------------------------

    def _slot(self, name: str) -> str:
        return str(self._scratch / name)

    def _probe_slot(self, number: int) -> str:
        return self._slot(f"probe{number}")

    def drop_slot(self, slot: str) -> None:
        """Free a scratch space that no worker uses any more."""
        if self._mounts:
            self._zygote.drop_scratch(slot)
        else:
            shutil.rmtree(slot, ignore_errors=True)

    def drop_slots(self, fleet: Fleet) -> None:
        """Free the scratch spaces of a fleet that has ended."""
        for slot in fleet.free_slots:
            self.drop_slot(slot)
        fleet.free_slots.clear()

    def make(self, owner: Owner, fleet: Fleet) -> Worker:
        """Return a worker that `launch` starts, with a scratch space that an ended one left, or a new one."""
        self._ids += 1
        if not fleet.free_slots:
            self._slots += 1
            fleet.free_slots.append(self._slot(str(self._slots)))
        version = fleet.version
        owner_name = version.plain_name if version.logging.group else ""
        stream = stream_name(version.version, at=self._clock.time(), token=uuid.uuid4().hex, function=owner_name)
        slot = fleet.free_slots.pop()
        return Worker(owner, worker_id=self._ids, fleet=fleet, stream=stream, slot=slot)

    @staticmethod
    def _request(
        worker_id: int, *, code: str, slot: str, user: int | None, memory_mb: int, scratch_mb: int
    ) -> dict[str, Any]:
        return {
            "op": "start",
            "id": worker_id,
            "code": code,
            "opt": "",
            "needs": [],
            "scratch": slot,
            "scratch_mb": scratch_mb,
            "user": user,
            "memory_mb": memory_mb,
            "probe": False,
            "exec": None,
            "runtime_api": False,
            **networks.OF_THE_MACHINE,
        }

    async def launch(self, fleet: Fleet, worker: Worker) -> None:
        """Ask for the process and attach our ends; `started` or `failed` is reported later.

        Raises:
            RuntimeUnavailable: the zygote is gone and does not start again.
            OSError: no descriptors left.
        """
        async with self._lock:
            if not self._zygote.is_alive:
                await self._open_again()
        # That may have changed the folder of scratch spaces.
        worker.slot = self._slot(Path(worker.slot).name)
        version = fleet.version
        task_root, opt, scratch = self._view(fleet, worker)
        variables = environment.variables(
            version,
            stream=worker.stream,
            task_root=task_root,
            opt=opt,
            scratch=scratch,
            region=self._confinement.region,
            is_provisioned=worker.is_provisioned,
        )
        shared = await self.networks.enter(version, worker)
        if self.credentials is not None and version.role:
            variables |= await self.credentials.source(version)
        if worker.is_finished:
            raise RuntimeUnavailable(f"no worker for {version.name}: it was ended before it began")
        request = self._request(
            worker.id,
            code=fleet.code,
            slot=worker.slot,
            user=self._users.of(version.name) if self._own_users else None,
            memory_mb=version.memory_mb,
            scratch_mb=version.ephemeral_storage_mb,
        )
        if opt == mounts.OPT:
            request["opt"] = version.opt
        if version.interpreter is not None:
            request["needs"] = list(version.interpreter.needs)
        if fleet.needs_exec:
            request["exec"] = environment.exec_request(version, variables, task_root=task_root, opt=opt)
        request["runtime_api"] = commands.is_served(version)
        request |= networks.request_of(version, shared)
        if fleet.has_extensions:
            self._extended[worker.id] = worker  # before we wait: it may have ended until then
        try:
            await self._attach(worker, request, shared)
        except BaseException:
            self._not_extended(worker.id)
            raise
        worker.began_at = self._clock.monotonic()
        packages = Path(mounts.RUNTIME_FOLDER) if self._packages and self._mounts else self._packages
        if request["runtime_api"]:
            settings = environment.api_settings(
                version,
                environment=variables,
                task_root=task_root,
                opt=opt,
                process_namespace=self._process_namespaces,
            )
        else:
            settings = environment.init_settings(
                version, environment=variables, task_root=task_root, opt=opt, packages=packages
            )
        worker.write(frames.encode_init(settings))

    def _view(self, fleet: Fleet, worker: Worker) -> tuple[str, str, str]:
        """Return task root, folder of the layers and scratch space as the worker sees them."""
        covers = self._opt and environment.shows_opt(fleet.version)
        opt = mounts.OPT if covers or not fleet.version.opt else fleet.version.opt
        if self._mounts:
            return mounts.TASK_ROOT, opt, mounts.SCRATCH
        return fleet.code, opt, worker.slot

    async def _attach(self, worker: Worker, request: dict[str, Any], shared: Network | None) -> None:
        with contextlib.ExitStack() as theirs:
            ours, socket_end = socket.socketpair()
            theirs.callback(socket_end.close)
            ours.setblocking(False)
            log_read, log_write = os.pipe2(os.O_CLOEXEC)
            theirs.callback(os.close, log_write)
            os.set_blocking(log_read, False)
            tokens = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            worker.hold(ours, log_fd=log_read, tokens=tokens)
            others = [] if shared is None else [shared.link.descriptor]
            self._zygote.start(request, [socket_end.fileno(), log_write, tokens, *others])
            await worker.open(self._logs, self._clock)  # while the worker begins

    def kill(self, worker: Worker) -> float:
        """End a worker with all its descendants; `gone` is reported. Twice is fine.

        Returns:
            Seconds after which nobody should wait for it any longer: one with extensions tells them first, unless it
            broke a limit.
        """
        reason = "timeout" if worker.failure is not None and worker.failure.status == "timeout" else "spindown"
        is_told = worker.id in self._extended and not worker.is_lost
        if not is_told or (reason == "spindown" and worker.failure is not results.KILLED):
            self._zygote.kill(worker.id)
            return endings.GONE_MAX_S
        worker.write(frames.encode_shutdown(reason))
        asyncio.get_running_loop().call_later(EXTENSIONS_END_S, self._zygote.kill, worker.id)
        return EXTENSIONS_END_S + endings.GONE_MAX_S

    async def close(self) -> None:
        """End the zygote, and with it every worker, after a word to extensions; twice is fine."""
        if self._extended and self._zygote.is_alive:
            self._none_extended.clear()
            for worker in self._extended.values():
                worker.write(frames.encode_shutdown("spindown"))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EXTENSIONS_END_S):
                    await self._none_extended.wait()
        await self._zygote.close()
        self._processes.clear()
        await self.networks.close()
        await self._leave_home("closed")
        await asyncio.to_thread(shutil.rmtree, self._scratch, ignore_errors=True)


def _facts(reported: Iterable[Sequence[Any]]) -> list[Fact]:
    return [Fact(mechanism=m, in_force=f, detail=d) for m, f, d in reported]
