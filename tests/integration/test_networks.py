"""A daemon whose function has a vpc_config: shown by every tool, and nothing of it is left after kill -9 and a stop."""

import json
import os
from pathlib import Path

import pytest

from bridge.runtime import links
from bridge.runtime.links import Links
from tests.harness import wait_for, write_function
from tests.lambda_client import lambda_client
from tests.tools import network_namespaces

pytestmark = [pytest.mark.integration]

CONFIG = """
api = {{ auth = "none" }}

[functions.inside]
code = "{code}"
handler = "app.handler"
timeout_s = 60
memory_mb = 1536
reserved_concurrency = 300
network = "vpc"
vpc_config = {{ subnet_ids = ["subnet-0a1b2c3d"], security_group_ids = ["sg-0a1b2c3d"] }}

[functions.alone]
code = "{code}"
handler = "app.handler"
timeout_s = 60
network = "none"
"""
CODE = """
import os, socket
def handler(event, context):
    return [os.readlink("/proc/self/ns/net"), *(name for _, name in socket.if_nameindex())]
"""


def call(bridge, name):
    return json.loads(lambda_client(bridge).invoke(FunctionName=name)["Payload"].read())


def interfaces_of(made):
    return list(Path("/sys/class/net").glob(f"{made.prefix}*"))


def test_a_network_is_shown_and_gone_after_a_kill_and_a_stop(daemon, tmp_path):
    network_namespaces()
    bridge = daemon(CONFIG.format(code=write_function(tmp_path / "code", CODE)))
    made = Links(bridge.state / "run")

    network, *names = call(bridge, "inside")
    assert (network != os.readlink("/proc/self/ns/net"), names) == (True, ["lo", "eth0"])
    assert call(bridge, "alone")[1:] == ["lo"]
    shown = bridge.cli("functions", "show", "inside").stdout
    assert f"behind {made.prefix}1" in shown
    assert "150 projected: 300 at once x 1536 MB / 3 GB" in shown
    assert "subnets and groups (1 now): inside" in bridge.cli("doctor").stdout

    bridge.kill9()
    wait_for(lambda: not interfaces_of(made), description="the kernel has taken the namespace down")
    bridge.restart()
    assert call(bridge, "inside")[1:] == ["lo", "eth0"]
    assert len(interfaces_of(made)) == 1
    bridge.terminate()

    assert not interfaces_of(made)
    assert made.table not in links._tables()
