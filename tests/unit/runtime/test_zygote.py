"""A zygote that cannot fork: it tries again, not too often, and what it had made for the worker does not stay."""

import json
import subprocess
import sys

import pytest

from tests.harness import ROOT

# In a process of its own: a zygote sets signal handlers, and borrows the names of our modules.
SCRIPT = """
import importlib.util, json, os, socket, sys, time
from bridge.runtime import cgroups

spec = importlib.util.spec_from_file_location("zygote", "bridge/runtime/zygote.py")
zygote = importlib.util.module_from_spec(spec)
spec.loader.exec_module(zygote)
folders, breaks, call = sys.argv[1:3], sys.argv[3], 0
ours, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
at = []


def refuse(*_, **__):
    at.append((time.monotonic(), [sorted(os.listdir(folder)) for folder in folders]))
    if len(at) == 3:
        ours.close()
    raise BlockingIOError(11, "Resource temporarily unavailable")


def make_half(path, mode=0o777, *, dir_fd=None, mkdir=os.mkdir):
    if dir_fd == groups._folders[1]:
        refuse()
    mkdir(path, mode, dir_fd=dir_fd)


groups = cgroups.Cgroups([os.open(folder, os.O_RDONLY) for folder in folders])
if breaks == "mkdir":
    os.mkdir = make_half
elif breaks == "fork":
    os.fork = refuse
else:
    zygote.socket.socketpair = refuse
one = zygote.Zygote(control, {"group_home": "none"}, refusal="", ports_ruleset=None, groups=groups)
one.serve()
one._remove_groups()
print(json.dumps({
    "least_s": min(after[0] - before[0] for before, after in zip(at, at[1:])),
    "most": max(len(names) for _, listed in at for names in listed),
    "left": [os.listdir(folder) for folder in folders],
}))
"""


@pytest.mark.parametrize("breaks", ["fork", "socketpair", "mkdir"])
def test_nothing_stays_of_a_worker_that_could_not_be_forked(tmp_path, breaks):
    folders = [tmp_path / "memory", tmp_path / "pids"]
    for folder in folders:
        folder.mkdir()

    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *folders, breaks],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["left"] == [[], []]
    assert found["most"] == 1, "that of the present try"
    assert found["least_s"] > 0.15, "not a busy loop"
