"""A zygote executed ahead of the pool: the pool takes it, it denies the ports it is told of, and it never outlives us."""

import json
import socket
import uuid

import pytest

from bridge.core.function import FunctionVersion, function_arn
from bridge.core.invocation import Invocation
from bridge.runtime import launch, syscalls
from bridge.runtime.logs import FunctionLogs
from bridge.runtime.pool import WorkerPool
from bridge.util.clocks import SystemClock

CONNECT = """
import socket

def handler(event, context):
    try:
        socket.create_connection(("127.0.0.1", event["port"]), timeout=60).close()
    except PermissionError:
        return "denied"
    return "connected"
"""


@pytest.fixture
def ports():
    """Two ports of this machine that take connections."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        yield one.getsockname()[1], other.getsockname()[1]


@pytest.fixture(autouse=True)
def nothing_left():
    yield
    launch.drop()


@pytest.mark.parametrize("told", ["nothing", "the port", "another port"])
async def test_workers_of_a_launched_zygote_cannot_reach_denied_ports(tmp_path, ports, told):
    denied, open_port = ports
    launch.ahead(denied_ports={"nothing": (), "the port": (denied,), "another port": (open_port,)}[told])
    code = tmp_path / "code"
    code.mkdir()
    (code / "app.py").write_text(CONNECT)
    (tmp_path / "logs").mkdir()
    logs = FunctionLogs(tmp_path / "logs")
    pool = WorkerPool(run_folder=tmp_path / "run", logs=logs, clock=SystemClock(), workers_max=1, deny_ports=(denied,))
    version = FunctionVersion(
        name="f", arn=function_arn("f"), code=str(code), revision="1", handler="app.handler", timeout_s=60
    )
    await pool.open()
    try:
        assert not launch._ahead  # taken
        answers = []
        for port in (denied, open_port):
            payload = json.dumps({"port": port}).encode()
            result = await pool.invoke(
                version, Invocation(request_id=str(uuid.uuid4()), payload=payload, invoked_arn=version.arn)
            )
            answers.append(json.loads(result.payload))
    finally:
        await pool.close()
        logs.close()
    knows_ports = syscalls.landlock_abi() >= 4  # Linux 6.7
    assert answers == ["denied" if knows_ports else "connected", "connected"]


def test_a_zygote_that_nobody_took_ends(ports):
    launch.ahead(denied_ports=ports[:1])
    launch.ahead()  # one is enough
    ((process, _),) = launch._ahead

    launch.drop()

    assert process.returncode == 0
    launch.drop()


def test_take_launches_when_nothing_waits():
    process, control = launch.take()

    assert process.poll() is None
    control.close()
    assert process.wait(60) == 0
