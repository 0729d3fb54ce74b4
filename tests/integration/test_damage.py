"""A disk that changes a stored byte under a running daemon: shown, said by the doctor, and harmless to the rest."""

import pytest

from tests.harness import wait_for, write_function

pytestmark = pytest.mark.integration

CONFIG = """
[functions.quick]
code = "{code}"
handler = "app.handler"

[sources.load]
type = "webhook"
path = "/load"
function = "quick"
verify = "none"
"""


def test_a_damaged_record_is_shown_and_the_doctor_says_where(daemon, tmp_path):
    code = write_function(tmp_path / "code", "def handler(event, context):\n    return 1\n")
    running = daemon(CONFIG.format(code=code))
    ids = [running.post("/load", {"name": name}, **{"Content-Type": "application/json"}).json()["id"] for name in "ab"]
    wait_for(lambda: running.admin("GET", f"/admin/v1/events/{ids[1]}").json()["state"] == "succeeded")
    segment = next((running.state / "p0" / "journal").glob("*.seg"))
    with segment.open("r+b") as file:
        at = file.read().index(b'{\\"name\\"')
        file.seek(at)
        file.write(b"\xff")

    shown = running.cli("events", "show", ids[0])
    assert shown.returncode == 0
    assert f"{segment.name} is damaged at byte" in shown.stdout
    assert running.cli("events", "show", ids[1]).stdout.count("damaged") == 0
    note = "1 damaged record was left out; `bridge doctor` says where"
    listed = running.cli("events", "list")
    assert note in listed.stderr
    assert (ids[0][:8] in listed.stdout, ids[1][:8] in listed.stdout) == (False, True)
    assert note in running.cli("events", "list", "--json").stderr
    assert note in running.cli("replay", "--dry-run").stderr
    assert note in running.cli("replay", "--yes").stderr
    doctor = running.cli("doctor")
    assert f"damaged records: 1, the first in {segment.name}" in doctor.stdout
    assert doctor.returncode == 1
    assert running.metrics()["bridge_journal_damaged_records"] == 1
    assert running.post("/load", b"{}").status == 202


MAPPED = """
[functions.quick]
code = "{code}"
handler = "app.handler"

[sources.load]
type = "webhook"
path = "/load"
verify = "none"

[mappings.quick]
source = "load"
function = "quick"
starting_position = "TRIM_HORIZON"
shards = 1
"""


def test_a_damaged_record_of_a_stream_is_a_dead_letter_of_the_mapping(daemon, tmp_path):
    code = write_function(tmp_path / "code", "def handler(event, context):\n    print(event)\n")
    running = daemon(MAPPED.format(code=code))
    assert running.cli("mappings", "pause", "quick").returncode == 0
    ids = [running.post("/load", f"value-{n}", **{"Content-Type": "text/plain"}).json()["id"] for n in range(3)]
    segment = next((running.state / "p0" / "journal").glob("*.seg"))
    with segment.open("r+b") as file:
        at = file.read().index(b"value-1")
        file.seek(at)
        file.write(b"\xff")

    assert running.cli("mappings", "resume", "quick").returncode == 0
    wait_for(lambda: running.admin("GET", "/admin/v1/dlq").json()["dead_letters"])
    (letter,) = running.admin("GET", "/admin/v1/dlq").json()["dead_letters"]
    assert (letter["condition"], letter["source"]) == ("RecordDamaged", "quick")
    shown = running.cli("dlq", "show", letter["id"]).stdout
    assert f"{segment.name} is damaged at byte" in shown
    assert ids[1] in shown
    wait_for(lambda: "value-2" in running.cli("logs", "quick").stdout)
    assert "value-1" not in running.cli("logs", "quick").stdout
    wait_for(lambda: _is_done(running), description="the mark passes the damaged record")


def _is_done(running):
    return [shard["behind"] for shard in running.admin("GET", "/admin/v1/mappings/quick").json()["shards"]] == [0]
