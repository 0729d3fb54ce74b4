"""`bridge keys`: with a daemon through its api, without one on its files; the same answers."""

import asyncio
import json

import pytest

from bridge.registry.secrets import Seal
from bridge.store.folder import StateFolder
from bridge.store.functions import SqliteFunctions
from tests.unit.api.making import FUNCTIONS, Made
from tests.unit.cli.conftest import ServedMade, invoke, serving

VARIABLES = {"Variables": {"SECRET": "canary-of-keys"}}


@pytest.fixture
def served(tmp_path):
    with serving(ServedMade, tmp_path) as made:
        yield made


def test_through_the_daemon(served):
    def keys(*args):
        return invoke("--state", str(served.state), "keys", *args)

    assert "nothing was ever sealed" in keys("show").err
    assert "nothing was ever sealed" in keys("rotate").err
    api = served.made
    served.call(api.create(Publish=True, Environment=VARIABLES))
    shown = json.loads(keys("show", "--json").out)
    (old,) = shown["keys"]
    assert (old["name"], old["values"], shown["unreadable"]) == ("aws/lambda", 2, 0)
    assert shown["file"] == str(api.sealing.seal.path)
    running, revision = api.catalog.get("made").latest, api.made.get("made").latest.revision_id

    done = keys("rotate")
    assert (done.code, ": 2 values re-wrapped" in done.out, "the old key is gone" in done.err) == (0, True, True)
    assert api.changed.count("made") == len(api.changed), "no worker ends for it"
    assert api.catalog.get("made").latest is running
    assert api.made.get("made").latest.revision_id == revision
    (new,) = json.loads(keys("show", "--json").out)["keys"]
    assert (new["id"] in done.out, new["id"] != old["id"], new["values"]) == (True, True, 2)
    assert "aws/lambda" in keys("show").out
    found = served.call(api.json("GET", f"{FUNCTIONS}/made/configuration"))
    assert found["Environment"] == VARIABLES

    # another start reads it as it lies, and what runs is the same
    again = Made(served.folder, api.made._store)
    served.call(again.made.open())
    assert again.catalog.get("made").latest.revision == running.revision
    assert again.catalog.get("made").version("1").environment == VARIABLES["Variables"]

    api.sealing.seal.path.chmod(0o644)
    for verb in ("show", "rotate"):
        refused = keys(verb)
        assert (refused.code, "chmod 600" in refused.err) == (1, True), refused


@pytest.fixture
def state(tmp_path):
    """A state folder whose daemon has ended, with a function that has two sealed versions."""
    folder = StateFolder(tmp_path / "state")
    folder.open()
    folder.close()

    async def fill():
        store = await SqliteFunctions.open(folder.shared / "catalog.db")
        made = Made(tmp_path, store)
        made.sealing.seal = Seal(tmp_path / "state.key")
        await made.made.open()
        await made.create(Publish=True, Environment=VARIABLES)
        await made.world.close()
        await store.close()

    asyncio.run(fill())
    return folder


def test_on_the_files_when_no_daemon_runs(state, tmp_path):
    (tmp_path / "bridge.toml").write_text('region = "us-east-1"\n')

    def keys(*args):
        return invoke("--state", str(state.path), "keys", *args)

    (old,) = json.loads(keys("show", "--json").out)["keys"]
    assert (old["values"], old["made_at"] > 1_600_000_000) == (2, True)
    done = json.loads(keys("rotate", "--json").out)
    assert done == {"id": done["id"], "rewrapped": 2, "dropped": 1, "unreadable": 0, "resumed": False}
    (new,) = json.loads(keys("show", "--json").out)["keys"]
    assert (new["id"], new["values"]) == (done["id"], 2)

    state.open()  # as a daemon that has just started does
    refused = keys("rotate")
    assert (refused.code, "in use by another daemon" in refused.err) == (2, True)
    state.close()

    # a rotation that was cut short after the new key was there
    seal = Seal(tmp_path / "state.key")
    seal.add_key()
    cut = keys("show")
    assert "`bridge keys rotate` finishes it" in cut.err
    assert "finished the rotation to" in keys("rotate").out

    # functions of another region than the file's: bound to another ARN
    (tmp_path / "bridge.toml").write_text('region = "eu-west-1"\n')
    other = keys("rotate")
    assert (other.code, "2 values that no key opens" in other.err) == (0, True)
    (tmp_path / "bridge.toml").write_text('region = "us-east-1"\n')
    assert json.loads(keys("rotate", "--json").out)["rewrapped"] == 2

    (tmp_path / "state.key").unlink()
    lost = keys("rotate")
    assert (lost.code, "missing" in lost.err) == (1, True)


def test_no_state_folder_at_all(tmp_path):
    found = invoke("--state", str(tmp_path / "none"), "keys", "show")
    assert (found.code, "no state folder" in found.err) == (1, True)
    assert not (tmp_path / "none").exists()
