"""Networks of functions: those of a VpcConfig reach hosts beyond this machine and nothing reaches them; `none` is alone.

Hosts are further network namespaces: nothing outside this machine is contacted.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import pytest_asyncio

from bridge.core.errors import RuntimeUnavailable
from bridge.core.network import NONE, VPC, VpcConfig
from bridge.runtime import links
from bridge.runtime.links import Links
from bridge.runtime.networks import MACHINE, Networks, resolver
from tests.harness import ROOT, wait_for
from tests.tools import lacking, network_namespaces
from tests.unit.runtime.bootstraps import SHELL, executable, talker
from tests.unit.runtime.conftest import own_pool

pytestmark = pytest.mark.asyncio(loop_scope="module")
OWN = f"203.0.113.{int(os.environ.get('PYTEST_XDIST_WORKER', 'gw63').removeprefix('gw')) % 64 * 4}"
"""Where the link to this process's host begins (TEST-NET-3): other processes run the same tests."""
HOST, GATE = (OWN.rpartition(".")[0] + f".{int(OWN.rpartition('.')[2]) + n}" for n in (2, 1))
A = VpcConfig(subnet_ids=("subnet-0a1b2c3d",), security_group_ids=("sg-0a1b2c3d",))
B = VpcConfig(subnet_ids=("subnet-0b1b2c3d",), security_group_ids=("sg-0a1b2c3d",))
SAME_AS_A = VpcConfig(subnet_ids=A.subnet_ids, security_group_ids=A.security_group_ids * 2)
TALK_MAX_S = 20
CONNECT = f"""
import socket
try:
    with socket.create_connection(tuple(event["to"]), {TALK_MAX_S}) as talk:
        answer = talk.makefile().read()
except OSError as error:
    answer = error.strerror or str(error)
"""
LISTEN = """
import builtins, socket
builtins.kept = socket.create_server(("0.0.0.0", 0))
answer = builtins.kept.getsockname()[1]
"""
WHERE = "import os; answer = os.readlink('/proc/self/ns/net')"
INTERFACES = "import socket; answer = [name for _, name in socket.if_nameindex()]"
REFUSED = {"No route to host", "Connection refused", "Network is unreachable"}


@pytest.fixture(scope="module")
def is_root():
    network_namespaces()


@pytest.fixture
def can_be_alone(shared):
    facts = {mechanism: detail for mechanism, ok, detail in shared.pool.sandbox_facts() if not ok}
    if "network namespace" in facts:
        lacking(f"needs root or user namespaces: {facts['network namespace']}")


def greet(listener):
    """Tell everybody who they are, until the listener is closed."""
    with contextlib.suppress(OSError):
        while True:
            connection, (address, _) = listener.accept()
            with connection:
                connection.sendall(address.encode())


@contextlib.contextmanager
def greeter(address):
    with socket.create_server((address, 0)) as listener:
        thread = threading.Thread(target=greet, args=[listener])
        thread.start()
        try:
            yield listener.getsockname()
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


class Host:
    """A machine of its own, one hop away: it knows the way to the addresses of functions."""

    def __init__(self):
        self.name = f"bt{os.getpid()}"
        self.namespace = links._new_namespace()
        links._batch(
            f"link add {self.name} type veth peer name eth0 netns /proc/self/fd/{self.namespace}",
            f"addr add {GATE}/30 dev {self.name}",
            f"link set {self.name} up",
            descriptors=[self.namespace],
        )
        links._within(
            self.namespace,
            lambda: links._batch(
                "link set lo up", f"addr add {HOST}/30 dev eth0", "link set eth0 up",
                f"route add {links.RANGE} via {GATE}",
            ),
        )  # fmt: skip

    def attempt(self, address):
        """Return what a connection from there comes to."""
        found = []
        links._within(self.namespace, lambda: found.append(attempt(address)))
        return found[0]

    @contextlib.contextmanager
    def greeter(self, address=HOST):
        made = []
        links._within(self.namespace, lambda: made.append(socket.create_server((address, 0))))
        with made[0] as listener:
            thread = threading.Thread(target=greet, args=[listener])
            thread.start()
            yield listener.getsockname()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()

    def close(self):
        links._run("ip", "link", "delete", self.name)
        os.close(self.namespace)


def attempt(address):
    try:
        with socket.create_connection(address, TALK_MAX_S):
            return "connected"
    except OSError as error:
        return error.strerror or str(error)


@pytest.fixture(scope="module")
def host(is_root):
    host = Host()
    yield host
    host.close()


@pytest_asyncio.fixture(loop_scope="module")
async def runner(shared):
    yield shared
    await shared.clear()
    await shared.pool.networks.close()


async def inside(runner, code, event=None, *, vpc=A, name="one", **fields):
    return await runner.value("app.run", {"code": code, **(event or {})}, name=name, vpc=vpc, **fields)


async def test_out_passes_by_this_machines_address(runner, host):
    with host.greeter() as address:
        assert await inside(runner, CONNECT, {"to": address}) == GATE


async def test_nothing_comes_in(runner, host):
    port = await inside(runner, LISTEN)
    address = (
        runner.pool._starter.networks._networks[f"us-east-1.000000000000 {A.subnet_ids[0]} sg-0a1b2c3d"].link.address,
        port,
    )
    to = {"to": address}

    listening = "import socket; socket.create_connection(tuple(event['to']), 20).close(); answer = 'connected'"
    assert await inside(runner, listening, to, name="other", vpc=SAME_AS_A) == "connected"  # it does listen
    assert host.attempt(address) in REFUSED
    assert attempt(address) in REFUSED
    assert await inside(runner, CONNECT, to, name="elsewhere", vpc=B) in REFUSED


async def test_this_machine_itself_is_not_reached(runner, host):
    with greeter("127.0.0.1") as loopback, greeter(GATE) as own:
        assert await inside(runner, CONNECT, {"to": loopback}) in REFUSED
        assert await inside(runner, CONNECT, {"to": own}) in REFUSED


async def test_metadata_is_not_reached(runner, host):
    links._run("ip", "addr", "add", "169.254.77.1/32", "dev", host.name)
    try:
        links._within(
            host.namespace,
            lambda: links._batch("addr add 169.254.77.2/32 dev eth0", f"route add 169.254.77.1 via {GATE}"),
        )
        links._run("ip", "route", "add", "169.254.77.2", "via", HOST, "dev", host.name)
        with host.greeter("0.0.0.0") as (_, port):
            with socket.create_connection(("169.254.77.2", port), TALK_MAX_S):
                pass  # this machine reaches it
            assert await inside(runner, CONNECT, {"to": ["169.254.77.2", port]}) in REFUSED
    finally:
        links._run("ip", "addr", "delete", "169.254.77.1/32", "dev", host.name)


async def test_a_set_shares_one_namespace(runner, host):
    one = await inside(runner, WHERE)
    other = await inside(runner, WHERE, name="other", vpc=SAME_AS_A)
    elsewhere = await inside(runner, WHERE, name="elsewhere", vpc=B)
    account = await inside(runner, WHERE, name="abroad@us-east-1.111111111111")

    assert one == other
    assert len({one, elsewhere, account, os.readlink("/proc/self/ns/net")}) == 4
    assert await runner.code(WHERE) == os.readlink("/proc/self/ns/net")
    assert await inside(runner, INTERFACES) == ["lo", "eth0"]


async def test_the_runtime_api_lives_in_the_namespace(runner, host, tmp_path):
    code = talker(tmp_path / "code")
    with host.greeter() as address:
        event = {"code": CONNECT, "to": address}
        assert await runner.value("any", event, code=code, runtime="provided.al2023", name="native", vpc=A) == GATE


@pytest.mark.parametrize("variables", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["forked", "executed"])
async def test_none_has_its_own_loopback_alone(runner, can_be_alone, variables):
    code = (
        f"{INTERFACES}\nheard = socket.create_server(('127.0.0.1', 0))\nsocket.create_connection(heard.getsockname())"
    )
    fields = {"name": "alone", "network": NONE, "environment": variables}

    assert await runner.code(code, **fields) == ["lo"]
    assert await runner.value("app.run", {"code": CONNECT, "to": [HOST, 80]}, **fields) == "Network is unreachable"
    with greeter("127.0.0.1") as loopback:
        assert await runner.value("app.run", {"code": CONNECT, "to": loopback}, **fields) == "Connection refused"


async def test_none_behind_the_runtime_api(runner, can_be_alone, tmp_path):
    code = executable(tmp_path / "code", SHELL)

    assert await runner.value("any", 7, code=code, runtime="provided.al2023", name="native", network=NONE) == {
        "seen": 7
    }


async def test_everything_is_taken_down(is_root, tmp_path):
    async with own_pool(tmp_path, workers_max=2) as runner:
        await inside(runner, WHERE)
        made = runner.pool._starter.networks._links
        assert made.table in links._tables()
        assert interfaces_of(made)
        facts = runner.pool.networks.facts([runner.version("app.run", vpc=A)])
        assert (facts[0][1], "1 now" in facts[0][2]) == (True, True)

    assert made.table not in links._tables()
    assert not interfaces_of(made)
    assert not made._marker.exists()


async def test_without_workers_a_namespace_makes_room(is_root, tmp_path, monkeypatch):
    monkeypatch.setattr("bridge.runtime.networks.NETWORKS_MAX", 1)
    async with own_pool(tmp_path, workers_max=2) as runner:
        await inside(runner, WHERE)
        with pytest.raises(
            RuntimeUnavailable, match='network = "vpc", and its network cannot be had: 1 sets of subnets'
        ):
            await inside(runner, WHERE, vpc=B, network=VPC, name="other")
        await runner.clear()
        assert await inside(runner, WHERE, vpc=B, network=VPC, name="other") != os.readlink("/proc/self/ns/net")


def interfaces_of(made):
    return list(Path("/sys/class/net").glob(f"{made.prefix}*"))


LEFT = """
import os, sys, time
from pathlib import Path
from bridge.runtime import syscalls
from bridge.runtime.links import Links
made = Links(Path(sys.argv[1]))
if sys.argv[2] == "apart":  # a machine of its own, whose forwarding is off
    syscalls.unshare(syscalls.CLONE_NEWNET)
    forwarding = Path("/proc/sys/net/ipv4/ip_forward")
    forwarding.write_text("0")
    other = Links(Path(sys.argv[3]))
    seen = []
    for step in (made.open, other.open, made.clean, other.clean):
        assert not step(), step
        seen.append(forwarding.read_text().strip())
    print(made.is_forwarding, other.is_forwarding, *seen, flush=True)
else:
    made.open()
    made.make("any")
    print("made", flush=True)
    time.sleep(600)
"""


def leave(*arguments):
    return subprocess.Popen([sys.executable, "-c", LEFT, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)


async def test_a_killed_daemon_leaves_nothing_that_its_next_start_does_not_take_away(is_root, tmp_path):
    made = Links(tmp_path)
    with leave(str(tmp_path), "here") as daemon:
        assert daemon.stdout.readline() == "made\n"
        assert interfaces_of(made)
        assert made.table in links._tables()
        daemon.send_signal(signal.SIGKILL)
    wait_for(lambda: not interfaces_of(made), description="the kernel has taken the namespace down")

    networks = Networks(tmp_path)
    await networks.open()

    assert made.table not in links._tables()
    assert not made._marker.exists()


async def test_forwarding_is_on_for_as_long_as_a_daemon_needs_it(is_root, tmp_path):
    (tmp_path / "other").mkdir()
    with leave(str(tmp_path), "apart", str(tmp_path / "other")) as daemon:
        assert daemon.stdout.read().split() == ["True", "False", "1", "1", "1", "0"]


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return Networks(tmp_path)


async def test_not_root_is_said_plainly(nobody, runner):
    version = runner.version("app.run", vpc=A, name="one")
    assert "made when its first worker starts" in nobody.described(version)

    assert await nobody.enter(version, None) is None

    assert nobody.described(version) == f"{MACHINE}, as its own cannot be had: the daemon is not root"
    assert nobody.facts([version]) == [
        ("function networks", False, f"one: {MACHINE}, as none can be made: the daemon is not root")
    ]
    strict = runner.version("app.run", vpc=A, name="one", network=VPC)
    assert nobody.described(strict) == 'refused, as network = "vpc" cannot be had: the daemon is not root'
    with pytest.raises(RuntimeUnavailable, match="cannot be had: the daemon is not root"):
        await nobody.enter(strict, None)


async def test_programs_that_are_missing_are_named(is_root, monkeypatch):
    monkeypatch.setattr(links, "_found", lambda program: None if program == "nft" else "/sbin/ip")

    assert links.missing() == "nft not found (Debian: iproute2, nftables)"


async def test_nobody_asks_for_one(nobody, runner):
    plain = runner.version("app.run")
    alone = runner.version("app.run", network=NONE)

    await nobody.prepare([plain, alone])

    assert nobody.trouble == ""
    assert nobody.facts([plain, alone]) == []
    assert nobody.described(plain) == ""
    assert nobody.described(alone) == "none: its own loopback interface alone"


@pytest.mark.parametrize(
    ("own", "upstream", "shown", "is_told"),
    [
        ("nameserver 192.0.2.1\n", "", False, False),
        ("nameserver 127.0.0.53\nnameserver 192.0.2.1\n", "", False, False),
        ("nameserver 127.0.0.53\n", "nameserver 192.0.2.1\n", True, False),
        ("nameserver 127.0.0.1\n", "", False, True),
    ],
    ids=["plain", "mixed", "resolved", "loopback"],
)
async def test_who_resolves_names(tmp_path, monkeypatch, own, upstream, shown, is_told):
    for name, text in (("RESOLVERS", own), ("UPSTREAM", upstream)):
        path = tmp_path / name
        path.write_text(text)
        monkeypatch.setattr(f"bridge.runtime.networks.{name}", path)

    path, trouble = resolver()

    assert (path == str(tmp_path / "UPSTREAM"), "loopback alone" in trouble) == (shown, is_told)
