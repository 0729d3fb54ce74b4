"""A keeper that is told to end its worker leaves nothing of it behind, whatever it does at that moment."""

import subprocess
import sys

import pytest

from tests.harness import ROOT

SCRIPT = """
import contextlib, itertools, json, os, signal, socket, sys
from bridge.runtime import keeper, syscalls


def serve(*_):
    if os.fork() == 0:
        signal.pause()  # left behind
    os._exit(0)


def told_at(nth):
    seen, me = itertools.count(), os.getpid()

    def trace(frame, event, _):
        if os.getpid() != me:
            sys.settrace(None)
        elif frame.f_code.co_filename == keeper.__file__:
            if event == "line" and next(seen) == nth:
                control.send(b"told")
                os.kill(me, signal.SIGTERM)
            return trace

    return trace


def keep(nth):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        ours.close()
        sys.settrace(told_at(nth))
        keeper.run(theirs, control=control, mounted=False, process_namespace=False, serve=serve)
    theirs.close()
    descriptors = [os.open(os.devnull, os.O_RDWR) for _ in range(3)]
    with ours, contextlib.suppress(OSError):  # it may have ended already
        socket.send_fds(ours, [json.dumps(request).encode()], descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    os.waitpid(pid, 0)
    return keeper.children()


request = {"id": 1, "user": None, "memory_mb": 128, "scratch_mb": 1, "mounts": False, "filtered": False,
           "code": "/", "probe": False, "exec": None, "runtime_api": False, "process_namespace": False, "network": "", "resolver": ""}
syscalls.become_subreaper()
reports, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
for nth in itertools.count():
    assert not keep(nth), f"left behind by the signal at step {nth}"
    told = False
    while True:
        try:
            told |= reports.recv(4096, socket.MSG_DONTWAIT) == b"told"
        except BlockingIOError:
            break
    if not told:
        break
print(nth)
"""


@pytest.mark.slow
def test_the_signal_ends_all_descendants_at_every_step_of_the_keeper() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 30, "steps of a keeper"
