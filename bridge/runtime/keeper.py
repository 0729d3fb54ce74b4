"""One keeper per worker: builds its namespaces, waits for its end, and leaves no descendant behind; child side.

In a process-id namespace the keeper is process 1: when it ends, the kernel ends everything in there.
Elsewhere it is the subreaper of the worker's tree, so that double-forked descendants come back to it.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from bridge.runtime import bootstrap, cgroups, mounts, network, runtime_api, sandbox, syscalls

KILL_ROUNDS_MAX: Final = 1000
REQUEST_MAX_BYTES: Final = 1 << 18
DESCRIPTORS_MAX: Final = 4
"""Of a request: socket, log pipe, tokens, and the network, where it is one that workers share."""
_OWN: Final = 3
_SIGNALS: Final = frozenset({signal.SIGCHLD, signal.SIGTERM})
"""What a keeper waits for: a child's end, or the zygote's word to end its worker. Else they wait, blocked, for it."""


def run(
    channel: socket.socket,
    *,
    control: socket.socket,
    mounted: bool,
    process_namespace: bool,
    serve: Callable[[int, int], NoReturn],
    groups: cgroups.Cgroups | None = None,
    group: str = "",
) -> NoReturn:
    """Be a keeper: fork a worker-to-be, wait for the request, furnish its namespaces, let it go, wait for its end.

    Called in the forked child, mostly before anybody needs a worker: what can be done before is done before.

    Args:
        channel: brings the request and the worker's descriptors; closed without one when no worker is needed.
        control: the zygote's socket to the daemon, for telling how the worker fares.
        mounted: the zygote has a mount namespace, so each worker gets one.
        process_namespace: this is process 1 of a namespace.
        serve: the worker's main loop, given socket and token descriptors.
        groups: where the worker is put into the control group `group`; None: into none.
        group: see `groups`.
    """
    try:
        # No handler: it would interrupt whatever comes next, also the killing, and just before a wait it would not run.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        syscalls.die_with_parent(signal.SIGKILL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        if not process_namespace:
            syscalls.become_subreaper()
        if mounted:
            mounts.enter_worker()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        worker = os.fork()
        if worker == 0:
            ours.close()
            channel.close()
            _be_worker(theirs, control=control, serve=serve, group=None if groups is None else group)
        theirs.close()
        try:
            _keep(worker, channel, ours, control=control, group=_Group(groups, group, worker))
        finally:
            if not process_namespace:
                kill_children()
    finally:
        os._exit(0)  # a forked child must never return into the zygote's loop


class _Group:
    """The worker's control group, if it has one: entered while the worker still prepares itself."""

    def __init__(self, groups: cgroups.Cgroups | None, name: str, worker: int) -> None:
        self._groups = groups
        self._name = name
        self._refusal: OSError | None = None
        if groups is not None:
            try:
                groups.enter(name, worker)
            except OSError as error:
                self._refusal = error

    def check(self) -> None:
        """Raise OSError: the worker is not in it."""
        if self._refusal is not None:
            raise OSError(f"control group: {self._refusal}")

    def was_short_of_memory(self) -> bool:
        """Tell whether the kernel has killed in it for want of memory."""
        return self._groups is not None and self._groups.was_short_of_memory(self._name)


def _keep(worker: int, channel: socket.socket, door: socket.socket, *, control: socket.socket, group: _Group) -> None:
    data, descriptors, _, _ = socket.recv_fds(channel, REQUEST_MAX_BYTES, DESCRIPTORS_MAX)
    if not data:
        os.kill(worker, signal.SIGKILL)
        return
    request = json.loads(data)
    # The daemon takes our process id from the message's credentials: here it may have another number.
    _tell(control, {"op": "started", "id": request["id"]})
    try:
        group.check()
        if request["mounts"]:
            mounts.furnish_worker(
                code=request["code"],
                opt=request["opt"],
                needs=request["needs"] if request["user"] is not None else [],
                needed=request["needed"],
                scratch=request["scratch"],
                hidden=request["hidden"],
                ways=request["ways"],
                new_proc=request["process_namespace"],
            )
            if request["resolver"]:
                mounts.cover_resolver(request["resolver"])
        socket.send_fds(door, [data], descriptors)
    except OSError as error:
        _tell(control, {"op": "failed", "id": request["id"], "error": str(error)})
        os.kill(worker, signal.SIGKILL)
    for descriptor in (*descriptors, door.detach(), channel.detach()):
        os.close(descriptor)
    status = _wait(worker)
    if status is not None:
        is_short = group.was_short_of_memory()
        _tell(control, {"op": "ended", "id": request["id"], "status": status, "short_of_memory": is_short})


def _wait(worker: int) -> int | None:
    """Reap until `worker` has ended and return its status; None once we are to end it, and all that it has forked."""
    while signal.sigwait(_SIGNALS) == signal.SIGCHLD:
        with contextlib.suppress(ChildProcessError):
            while (reaped := os.waitpid(-1, os.WNOHANG))[0]:
                if reaped[0] == worker:
                    return reaped[1]
    return None


def _tell(control: socket.socket, report: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the daemon is gone: nobody to tell
        control.send(json.dumps(report).encode())


def kill_children() -> None:
    """Kill all descendants of this process, round by round: what was forked meanwhile goes in the next one."""
    for _ in range(KILL_ROUNDS_MAX):
        for child in descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.001)


def descendants() -> list[int]:
    """Return the process ids below this process, parents first: a parent that is dead forks no more."""
    found = children()
    for pid in found:  # grows as it goes
        try:
            threads = os.listdir(f"/proc/{pid}/task")
        except OSError:
            continue
        for thread in threads:
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += [int(child) for child in file.read().split()]
    return found


def children() -> list[int]:
    """Return the process ids of this process's children."""
    try:
        with open("/proc/thread-self/children", encoding="ascii") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        me, found = os.getpid(), []
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError, ValueError, IndexError):
                pid = int(entry)
                with open(f"/proc/{pid}/stat", "rb") as stat:
                    if int(stat.read().rpartition(b")")[2].split()[1]) == me:
                        found.append(pid)
        return found


def _be_worker(
    door: socket.socket, *, control: socket.socket, serve: Callable[[int, int], NoReturn], group: str | None
) -> NoReturn:
    status = 70
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        syscalls.die_with_parent(signal.SIGKILL)
        os.setsid()
        bootstrap.rehearse()
        data, descriptors, _, _ = socket.recv_fds(door, REQUEST_MAX_BYTES, DESCRIPTORS_MAX)
        if not data:
            os._exit(0)
        request = json.loads(data)
        own, others = descriptors[:_OWN], descriptors[_OWN:]
        try:
            network.enter(request["network"], others)
        except OSError as error:
            said = f"its network cannot be had: {error}"
            _tell(control, {"op": "failed", "id": request["id"], "error": said})
            os._exit(status)
        # Asked before the capabilities go, in a worker that runs no function.
        alone = sandbox.attempt("network namespace", network.be_alone) if request["probe"] else None
        _arrange_descriptors(request, own, report=control)
        facts = sandbox.confine(
            user=request["user"],
            memory_mb=None if request["runtime_api"] else request["memory_mb"],
            file_mb=None if request["mounts"] else request["scratch_mb"],
            filtered=request["filtered"],
        )
        os.chdir(mounts.TASK_ROOT if request["mounts"] else request["code"])
        if alone is not None:
            facts.append(alone)
            if group is not None:
                facts.append(sandbox.attempt("control group", lambda: cgroups.check_own(group)))
            _tell(control, {"op": "probed", "id": request["id"], "facts": [fact.as_list() for fact in facts]})
            os._exit(0)
        control.close()
        if request["exec"] is not None:
            os.execve(request["exec"]["program"], request["exec"]["argv"], request["exec"]["env"])  # noqa: S606
        if request["runtime_api"]:
            runtime_api.serve(sandbox.SOCKET_DESCRIPTOR, sandbox.TOKENS_DESCRIPTOR)
        serve(sandbox.SOCKET_DESCRIPTOR, sandbox.TOKENS_DESCRIPTOR)
    except BaseException as error:  # noqa: BLE001 - a forked child must never return into its parent's code
        with contextlib.suppress(OSError):
            os.write(2, f"worker could not start: {error}\n".encode())
    finally:
        os._exit(status)


def _arrange_descriptors(request: Mapping[str, Any], descriptors: list[int], *, report: socket.socket) -> None:
    """Leave open: 0 (/dev/null), 1 and 2 (log pipe), the socket, the tokens, and the control socket of a probe."""
    worker_socket, log, tokens = descriptors
    null = os.open(os.devnull, os.O_RDONLY)
    inheritable = request["exec"] is not None
    os.dup2(worker_socket, sandbox.SOCKET_DESCRIPTOR, inheritable=inheritable)
    os.dup2(tokens, sandbox.TOKENS_DESCRIPTOR, inheritable=inheritable)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    kept = report.fileno()
    os.closerange(3, kept)
    os.closerange(kept + 1, sandbox.SOCKET_DESCRIPTOR)
    os.set_inheritable(kept, False)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - lives as long as the worker
