"""`bridge doctor`, with a daemon and without."""

import asyncio
import contextlib
import json
import socket
import sqlite3

import pytest
import pytest_asyncio

from bridge.core.invocation import InvocationType
from bridge.core.record import Record
from bridge.sources.pull.kafka_reach import Reach
from bridge.store.folder import StateFolder
from tests.unit.api.harness import NOW, event_id


@pytest.fixture(autouse=True)
def _no_workers(monkeypatch):
    from bridge.cli import doctor

    monkeypatch.setattr(doctor, "_sandbox", lambda: [doctor.Finding("landlock", True, "ABI 7")])


@pytest_asyncio.fixture
async def state(tmp_path):
    """A state folder with a journal of three events, as a daemon that ended leaves it."""
    return await made(tmp_path / ".bridge")


def journal_of(path):
    from bridge.journal.journal import SegmentJournal

    return SegmentJournal(
        folder=path / "p0" / "journal", segment_bytes=1 << 20, low_water_bytes=0, on_fatal=lambda _: None
    )


async def made(path):
    folder = StateFolder(path)
    folder.open()
    try:
        journal = journal_of(path)
        await journal.open()
        for number in range(3):
            await journal.append(
                Record(
                    id=event_id(number), source="s", function="f", invocation_type=InvocationType.EVENT, received_at=NOW,
                    payload=b'{"n":1}' * 20,
                )
            )  # fmt: skip
        await journal.close()
    finally:
        folder.close()
    return path


def findings(found) -> dict[str, tuple[bool, str]]:
    lines = [json.loads(line) for line in found.out.splitlines()]
    return {line["name"]: (line["ok"], line["detail"]) for line in lines}


def test_with_a_daemon_it_is_asked(bridge, served):
    found = bridge("doctor")
    assert (found.code, found.out.splitlines()[1]) == (0, "ok  landlock  ABI 7")
    served.world.facts.append(("seccomp", False, "not in this kernel"))

    found = bridge("doctor")

    assert (found.code, found.out.splitlines()[2]) == (1, "!!  seccomp   not in this kernel")
    repair = bridge("doctor", "--repair")
    assert (repair.code, "stop it first" in repair.err) == (2, True)


def test_without_a_state_folder_it_says_what_would_be(alone):
    found = alone("doctor", "--json")

    assert found.code == 0
    assert "the first `bridge run` makes it" in findings(found)["state folder"][1]
    assert findings(found)["landlock"] == (True, "ABI 7")


def test_a_sound_folder(alone, state):
    found = alone("doctor", "--json")

    assert found.code == 0, found.out
    assert "no daemon runs" in found.err
    assert findings(found)["journal"][0]
    assert "every frame checked" in findings(found)["journal"][1]


def test_a_folder_that_is_a_file(alone, tmp_path):
    (tmp_path / ".bridge").write_text("")

    found = alone("doctor")

    assert found.code in (1, 2)
    assert "Traceback" not in found.err


def test_a_folder_in_use_is_not_touched(alone, state):
    folder = StateFolder(state)
    folder.open()
    try:
        found = alone("doctor", "--json", "--repair")
    finally:
        folder.close()

    assert found.code == 1
    assert "in use" in findings(found)["state folder"][1]


def damage(path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xff" * 8)


async def test_a_damaged_journal_is_said_and_moved_aside_on_demand(alone, state):
    (segment,) = (state / "p0" / "journal").glob("*.seg")
    damage(segment, 120)

    found = alone("doctor", "--json")
    assert found.code == 1
    assert "is damaged at byte" in findings(found)["journal"][1]
    assert segment.exists()

    repaired = alone("doctor", "--json", "--repair")
    assert "out of the daemon's sight" in findings(repaired)["journal"][1]
    assert not segment.exists()
    assert alone("doctor").code == 0
    (aside,) = (state / "p0" / "journal").glob("*.damaged-*")
    assert aside.stat().st_size > 120
    journal = journal_of(state)
    await journal.open()
    assert journal.end >> 32 > int(segment.stem, 16)  # no position is given twice
    await journal.close()


def test_a_damaged_database_is_said_and_salvaged_on_demand(alone, state):
    database = state / "p0" / "state.db"
    database.write_bytes(b"no database at all" * 100)

    found = alone("doctor", "--json")
    assert (found.code, findings(found)["parked events and dead letters"][0]) == (1, False)

    repaired = alone("doctor", "--json", "--repair")
    assert "the old file is" in findings(repaired)["parked events and dead letters"][1], repaired.out
    assert sqlite3.connect(database).execute("PRAGMA quick_check").fetchone() == ("ok",)
    assert alone("doctor").code == 0


@pytest.mark.slow
def test_the_sandbox_is_probed_without_a_daemon(monkeypatch):
    monkeypatch.undo()
    from bridge.cli import doctor

    found = doctor._sandbox()

    assert {"sandbox level", "control group", "limits", "no new privileges"} <= {finding.name for finding in found}


CONFIGURED = """
[functions.f]
code = "code"
handler = "app.handler"

[connections.main]
type = "kafka"
bootstrap_servers = ["{server}"]

[mappings.orders]
source = "kafka://main/orders"
function = "f"
starting_position = "LATEST"

[mappings.clicks]
source = "local://clicks?as=kafka"
function = "f"
"""


def configured(tmp_path, server):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "app.py").write_text("def handler(event, context):\n    pass\n")
    (tmp_path / "bridge.toml").write_text(CONFIGURED.format(server=server))


def test_without_a_daemon_each_connection_is_tried(alone, state, tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = f"127.0.0.1:{taken.getsockname()[1]}"
    configured(tmp_path, server)
    monkeypatch.setattr("bridge.cli.doctor._REACH_S", 60.0)

    found = alone("doctor", "--json")

    assert found.code == 1
    ok, text = findings(found)["connection main"]
    assert not ok
    assert text.startswith(f"cannot be reached: {server}: ")
    ok, said = findings(found)["mapping orders"]
    assert not ok
    assert said == f"no daemon runs it; reads kafka://main/orders for f: connection main {text}"
    assert findings(found)["mapping clicks"] == (True, "no daemon runs it; reads local://clicks?as=kafka for f")


@pytest.mark.parametrize(
    ("topics", "missing"), [(["orders", "failed"], None), (["orders"], "failed"), (["failed"], "orders")]
)
def test_topics_that_are_read_or_take_failures_must_be_there(alone, state, tmp_path, monkeypatch, topics, missing):
    async def reach(*_, **__):
        return Reach(topics=frozenset(topics))

    configured(tmp_path, "kafka-1:9092")
    file = tmp_path / "bridge.toml"
    file.write_text(file.read_text().replace("LATEST", 'LATEST"\non_failure = "kafka://main/failed'))
    monkeypatch.setattr("bridge.sources.pull.kafka_reach.reach", reach)

    ok, said = findings(alone("doctor", "--json"))["mapping orders"]

    assert ok is (missing is None)
    assert said.endswith("for f" if missing is None else f"for f: topic {missing} is not there, or not shown to us")


def test_one_that_says_nothing_is_given_up_soon(alone, state, tmp_path, monkeypatch):
    from bridge.cli import doctor

    monkeypatch.setattr(doctor, "_REACH_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        configured(tmp_path, f"127.0.0.1:{silent.getsockname()[1]}")
        found = alone("doctor", "--json")

    ok, text = findings(found)["connection main"]
    assert (ok, text.startswith("no answer within 0.2 s")) == (False, True)


def test_a_file_with_a_mistake_is_a_finding(alone, state, tmp_path):
    (tmp_path / "bridge.toml").write_text("[functions.f]\n")

    found = alone("doctor", "--json")

    assert found.code == 1
    assert not findings(found)["configuration"][0]
    assert "bridge.toml:1" in findings(found)["configuration"][1]


async def test_who_is_paused_is_said(alone, state, tmp_path):
    from bridge.store.schema import MIGRATIONS
    from bridge.store.sqlite import Database
    from bridge.store.state import DATABASE

    database = Database(state / "p0" / DATABASE, migrations=MIGRATIONS)
    database.open()
    await database.close()
    with contextlib.closing(sqlite3.connect(state / "p0" / DATABASE)) as connection, connection:
        connection.execute("INSERT INTO paused_mappings VALUES ('clicks')")
    configured(tmp_path, "127.0.0.1:1")

    found = await asyncio.to_thread(alone, "doctor", "--json")

    assert findings(found)["mapping clicks"][1].startswith("no daemon runs it; paused; reads local://clicks")


def test_connections_to_aws_are_asked_for_credentials_and_functions_elsewhere_are_not_invoked(
    alone, tmp_path, monkeypatch
):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SECRET", "very-secret")
    (tmp_path / "bridge.toml").write_text(
        '[connections.keys]\ntype = "aws"\nregion = "eu-central-1"\nendpoint_url = "http://127.0.0.1:1"\n'
        'access_key_id = "AKID"\nsecret_access_key = { env = "SECRET" }\n'
        '[connections.chain]\ntype = "aws"\nregion = "us-east-1"\n'
        '[functions.billing]\narn = "arn:aws:lambda:eu-central-1:123456789012:function:billing"\n'
    )

    found = alone("doctor", "--json")

    lines = findings(found)
    assert lines["connection keys"] == (True, "credentials of access key AKID, for eu-central-1")
    assert lines["connection chain"][0] is False
    assert lines["connection chain"][1].startswith("no AWS credentials for connections.chain: write access_key_id")
    assert lines["function billing"] == (
        True,
        "arn:aws:lambda:eu-central-1:123456789012:function:billing by connection keys",
    )
    assert "very-secret" not in found.out


async def test_it_looks_at_what_lambdas_api_made(alone, state):
    from bridge.store.functions import SqliteFunctions

    await (await SqliteFunctions.open(state / "shared" / "catalog.db")).close()
    found = await asyncio.to_thread(alone, "--state", str(state), "doctor", "--json")
    facts = {fact["name"]: fact for fact in map(json.loads, found.out.splitlines())}
    assert facts["functions of Lambda's API"]["detail"] == "0 functions, 0 packages, every hash checked"
    (state / "shared" / "catalog.db").write_bytes(b"x" * 8192)
    found = await asyncio.to_thread(alone, "--state", str(state), "doctor", "--json")
    facts = {fact["name"]: fact for fact in map(json.loads, found.out.splitlines())}
    assert facts["functions of Lambda's API"]["ok"] is False
