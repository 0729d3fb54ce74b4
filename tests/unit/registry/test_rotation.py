"""Rotation: whatever ends it, wherever, every value can be opened, and the next one finishes it."""

import asyncio
import os
import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.errors import SealBroken, StoreFull
from bridge.core.function import LATEST
from bridge.registry.made import NOT_KEPT, MadeFunction, MadeVersion, beside
from bridge.registry.rotation import Rotation, binding, holders, rotate
from bridge.registry.secrets import DataKey, Seal

KMS = "arn:aws:kms:us-east-1:000000000000:key/k"


def arn(name):
    return f"arn:aws:lambda:us-east-1:000000000000:function:{name}"


def version(seal, name, number, plain, **more):
    sealed = seal.close(plain, bound_to=binding(arn(name), number), **more)
    return MadeVersion(version=number, settings={}, package="", code_size=0, modified_at="", environment=sealed)


class Kept:
    """Functions as a store has them; a save may fail."""

    def __init__(self, path, *, names=("f", "g"), versions=2):
        seal = Seal(path)
        self.path, self.functions, self.saves_left = path, {}, 1000
        for name in names:
            numbers = [str(number) for number in range(1, versions + 1)]
            made = MadeFunction(
                name=name, latest=version(seal, name, LATEST, f"{name} {LATEST}".encode()),
                versions={number: version(seal, name, number, f"{name} {number}".encode()) for number in numbers},
            )  # fmt: skip
            self.functions[made.key] = made

    async def save(self, before, after):
        assert self.functions[after.key] == before
        if self.saves_left == 0:
            raise StoreFull("no space")
        self.saves_left -= 1
        self.functions[after.key] = after

    def rotate(self):
        return asyncio.run(rotate(Seal(self.path), list(self.functions.values()), arn_of=arn, save=self.save))

    def opened(self):
        seal = Seal(self.path)
        return {
            (made.name, each.version): seal.open(each.environment, bound_to=binding(arn(made.name), each.version))
            for made in self.functions.values() for each in made.all_versions() if each.environment
        }  # fmt: skip

    def holders(self):
        found, unreadable = holders(Seal(self.path), self.functions.values(), arn_of=arn)
        return [(each.name, each.values) for each in found], unreadable


def test_every_own_key_is_wrapped_anew_and_the_old_key_goes(tmp_path):
    kept = Kept(tmp_path / "key")
    before = kept.opened()
    (old,) = Seal(kept.path).keys()
    done = kept.rotate()

    assert (done.rewrapped, done.dropped, done.unreadable, done.resumed) == (6, 1, 0, False)
    assert done.key is not None
    assert [key.id for key in Seal(kept.path).keys()] == [done.key.id] != [old.id]
    assert kept.opened() == before
    assert kept.holders() == ([("aws/lambda", 6)], 0)


@given(cut=st.integers(0, 3), again=st.integers(0, 3))
def test_a_store_that_is_full_half_way_leaves_all_open_and_the_next_one_goes_on(tmp_path_factory, cut, again):
    kept = Kept(tmp_path_factory.mktemp("cut") / "key", names=("f", "g", "h"), versions=1)
    before = kept.opened()
    for saves in (cut, again):
        kept.saves_left = saves
        try:
            kept.rotate()
        except StoreFull:
            assert len(Seal(kept.path).keys()) == 2
        assert kept.opened() == before
    kept.saves_left = 1000
    was_cut = len(Seal(kept.path).keys()) == 2
    assert kept.rotate().resumed == was_cut
    assert (len(Seal(kept.path).keys()), kept.opened()) == (1, before)


def test_nothing_was_ever_sealed(tmp_path):
    kept = Kept(tmp_path / "key", names=())
    assert kept.rotate() == Rotation(key=None)
    assert not kept.path.exists()
    assert kept.holders() == ([], 0)


def test_a_key_file_that_is_gone_is_not_made_anew(tmp_path):
    kept = Kept(tmp_path / "key")
    kept.path.unlink()
    with pytest.raises(SealBroken, match="missing"):
        kept.rotate()
    assert not kept.path.exists()


def test_while_a_value_cannot_be_opened_the_old_key_stays(tmp_path):
    kept = Kept(tmp_path / "key", names=("f",), versions=0)
    sealed = kept.functions["f"].latest.environment
    # As after the file's region was changed: it is bound to another ARN.
    kept.functions["h"] = MadeFunction(
        name="h",
        latest=MadeVersion(settings={}, package="", code_size=0, modified_at="", environment=sealed),
    )
    done = kept.rotate()
    assert (done.rewrapped, done.dropped, done.unreadable) == (1, 0, 1)
    assert kept.holders() == ([("aws/lambda", 1), ("aws/lambda", 0)], 1)
    del kept.functions["h"]
    assert (kept.rotate().resumed, kept.holders()) == (True, ([("aws/lambda", 1)], 0))


def test_what_kms_wraps_is_left_to_it(tmp_path):
    kept = Kept(tmp_path / "key", names=("f",), versions=0)
    own = DataKey(plain=b"k" * 32, wrapped=b"blob", key=KMS)
    kept.functions["g"] = made = MadeFunction(
        name="g", latest=version(Seal(kept.path), "g", LATEST, b"x", data_key=own)
    )
    assert kept.rotate().rewrapped == 1
    assert kept.functions["g"] is made
    assert kept.holders() == ([("aws/lambda", 1), (KMS, 1)], 0)


def test_versions_of_declared_functions_too(tmp_path):
    kept = Kept(tmp_path / "key", names=())
    made = MadeFunction(
        name="d", is_declared=True, latest=NOT_KEPT, versions={"1": version(Seal(kept.path), "d", "1", b"x")}
    )
    kept.functions[beside("d")] = made
    assert kept.rotate().rewrapped == 1
    assert kept.opened() == {("d", "1"): b"x"}


KILLED = """
import asyncio, pickle, sys
from pathlib import Path
from bridge.registry.rotation import rotate
from bridge.registry.secrets import Seal
folder = Path(sys.argv[1])
functions = pickle.loads((folder / "functions").read_bytes())
async def save(before, after):
    functions[after.key] = after
    (folder / "next").write_bytes(pickle.dumps(functions))
    (folder / "next").rename(folder / "functions")
arn = lambda name: f"arn:aws:lambda:us-east-1:000000000000:function:{name}"
asyncio.run(rotate(Seal(folder / "key"), list(functions.values()), arn_of=arn, save=save))
"""
STEPS = ["keys.written", "keys.added", "keys.rewrapped", "keys.rewrapped:2", "keys.written", "keys.dropped"]
"""One after the other: the second `keys.written` is that of the old key's end."""


def test_killed_at_every_step(tmp_path):
    kept = Kept(tmp_path / "key", names=("f", "g", "h", "i"), versions=1)
    before, stored = kept.opened(), tmp_path / "functions"
    stored.write_bytes(pickle.dumps(kept.functions))

    def run(step):
        variables = os.environ | {"BRIDGE_CRASH_AT": step}
        return subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=variables, check=False).returncode

    for step in STEPS:
        assert run(step) == 137, step
        kept.functions = pickle.loads(stored.read_bytes())
        assert kept.opened() == before, step
    assert run("") == 0
    kept.functions = pickle.loads(stored.read_bytes())
    assert (len(Seal(kept.path).keys()), kept.opened(), kept.holders()[1]) == (1, before, 0)
