"""Where the daemon is not root: state, key file and the api's port are denied; without Landlock no stranger's function runs."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.harness import ROOT
from tests.unit.runtime.not_root import NOBODY

pytestmark = pytest.mark.slow
DENIED = {"ENOENT", "EACCES", "EISDIR"}


@pytest.fixture(scope="module")
def told():
    """Return what tests.unit.runtime.not_root prints, run by a user that is not root, by sandbox."""
    # Pytest's own folder is closed to others, and a worker's /tmp is another one.
    folder = Path(tempfile.mkdtemp(prefix="bridge-not-root-", dir="/var/tmp"))
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    command = [sys.executable, "-m", "tests.unit.runtime.not_root", str(folder), "auto", "unmounted", "basic"]
    try:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}
        done = subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, timeout=300)
    finally:
        shutil.rmtree(folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("sandbox", ["auto", "unmounted"])
def test_state_key_and_port_are_denied_as_far_as_the_facts_say(told, sandbox):
    found = told[sandbox]
    facts, reached = found["facts"], found["reached"]

    assert reached["uid"] != 0
    assert not facts["own user"]
    assert not facts["control group"] or found["level"] == "cgroup"
    if facts["mount namespace"] or facts.get("landlock"):
        assert reached["key"] in DENIED | {""}  # covered by an empty device
        assert reached["state"] in DENIED
    if "port" in found["landlock"]:
        assert reached["port"] == "EACCES"
    assert bool(found["refusal"]) != facts.get("landlock", False)


def test_without_landlock_nobody_elsewhere_may_make_functions(told):
    assert told["basic"]["level"] == "basic"
    assert "neither Landlock nor a user of their own" in told["basic"]["refusal"]
