"""Layers of functions of the file: of Lambda's API, of folders and zips; what they come to, and what is missing."""

from dataclasses import replace
from pathlib import Path

import pytest

from bridge.api.awslambda import control
from bridge.config.mistakes import ConfigErrors
from bridge.daemon import layers as module
from bridge.daemon.layers import FileLayers
from bridge.registry.catalog import FunctionCatalog, FunctionSpec
from tests.harness import write_function
from tests.unit.api.making import FUNCTIONS, Made, MemoryFunctions, zipped
from tests.zips import zipped as zip_bytes

ARN = "arn:aws:lambda:us-east-1:000000000000:layer:tools:1"


class World(Made):
    def __init__(self, folder):
        super().__init__(folder, MemoryFunctions())
        self.folder = folder
        self.layers_of_file = FileLayers(self.made)
        self.code = write_function(folder / "code", "def handler(event, context): pass\n")

    def layer(self, name, text="VALUE = 1", file="python/common.py"):
        path = self.folder / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(self.folder / name)

    def specs(self, *layers, name="file"):
        return FunctionSpec(name=name, code=self.code, handler="app.handler", layers=layers)

    async def take(self, *specs):
        """Take a file as a reload does; return what changed."""
        new = FunctionCatalog.from_specs(specs)
        await self.layers_of_file.apply(new)
        self.layers_of_file.check(new, current=self.catalog)
        return self.catalog.replace_all(new)

    async def start(self, *specs):
        await self.made.open()
        self.catalog.replace_all(FunctionCatalog.from_specs(specs))
        await self.layers_of_file.apply(self.catalog)

    def latest(self, name="file"):
        return self.catalog.get(name).latest

    async def publish(self):
        content = {"Content": {"ZipFile": zipped("VALUE = 'api'", "python/common.py")}}
        return await self.json("POST", "/2018-10-31/layers/tools/versions", content, 201)


@pytest.fixture
async def world(tmp_path):
    made = World(tmp_path)
    yield made
    await made.world.close()


def value(version):
    return (Path(version.opt) / "python/common.py").read_text()


async def test_folders_zips_and_versions_are_merged_in_order(world):
    await world.start()
    await world.publish()
    one, two = world.layer("one", "VALUE = 'one'"), world.layer("two", "echo", "bin/tool")
    (world.folder / "three.zip").write_bytes(zip_bytes({"python/common.py": "VALUE = 'three'"}))
    await world.take(world.specs(one, ARN, two))

    assert value(world.latest()) == "VALUE = 'api'"
    assert (Path(world.latest().opt) / "bin/tool").read_text() == "echo"
    shown = (await world.json("GET", f"{FUNCTIONS}/file"))["Configuration"]["Layers"]
    assert [layer["Arn"] for layer in shown] == [
        "arn:bridge:layer:us-east-1:000000000000:one",
        ARN,
        "arn:bridge:layer:us-east-1:000000000000:two",
    ]
    assert all(layer["CodeSize"] > 0 for layer in shown)
    before = world.latest().revision
    await world.take(world.specs(one, ARN, two, str(world.folder / "three.zip")))
    assert value(world.latest()) == "VALUE = 'three'"
    assert world.latest().revision != before


async def test_a_file_taken_again_changes_nothing_and_packs_nothing(world, monkeypatch):
    await world.start(world.specs(world.layer("one")), world.specs(world.layer("one"), name="other"))
    packed = []
    zip_folder = module.zip_folder
    monkeypatch.setattr(module, "zip_folder", lambda *given: (packed.append(given), zip_folder(*given)))

    one = world.layer("one")  # touched, with the same in it
    assert await world.take(world.specs(one), world.specs(one, name="other")) == frozenset()
    assert await world.take(world.specs(one), world.specs(one, name="other")) == frozenset()
    assert len(packed) == 1


async def test_an_edited_layer_makes_another_revision_of_those_that_have_it(world):
    one, two = world.layer("one"), world.layer("two")
    await world.start(world.specs(one), world.specs(two, name="other"))
    before, other = world.latest(), world.latest("other")
    world.layer("one", "VALUE = 2")

    assert await world.layers_of_file.apply(world.catalog, only=one) == {"file"}
    assert (value(world.latest()), world.latest().revision == before.revision) == ("VALUE = 2", False)
    assert world.latest("other") == other
    assert await world.layers_of_file.apply(world.catalog, only=one) == frozenset()


async def test_a_missing_layer_is_a_state_at_the_start_and_a_mistake_of_a_reload(world):
    await world.start(world.specs(ARN), world.specs(name="other"))
    text = (
        f"InvalidZipFileException: Layer version {ARN} does not exist.; see [functions.X] layers, then `bridge reload`"
    )
    assert (world.latest().unrunnable, world.latest().opt) == (text, "")
    assert world.latest("other").unrunnable == ""
    refused = await world.refused("POST", f"{FUNCTIONS}/file/versions", {}, 400, "InvalidParameterValueException")
    assert "cannot be published: Layer version" in refused

    assert await world.take(world.specs(ARN), world.specs(name="third")) == {"other", "third"}, (
        "it lacks what it lacked"
    )
    with pytest.raises(ConfigErrors) as raised:
        await world.take(world.specs(ARN), world.specs(ARN, name="third"))
    assert raised.value.mistakes == (f"functions.third.layers: Layer version {ARN} does not exist.",)

    await world.publish()
    assert await world.take(world.specs(ARN), world.specs(ARN, name="third")) == {"file", "third"}
    assert {value(world.latest(name)) for name in ("file", "third")} == {"VALUE = 'api'"}


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("no.zip", b"x", "layer no.zip: Could not unzip"),
        ("gone", None, "layer gone: no such file or directory"),
    ],
)
async def test_what_is_no_layer_is_told_without_the_way_to_it(world, name, data, told):
    path = world.folder / name
    if data is not None:
        path.write_bytes(data)
    await world.start(world.specs(str(path)))

    assert told in world.latest().unrunnable
    assert str(world.folder) not in world.latest().unrunnable


async def test_code_and_layers_are_counted_together(world, monkeypatch):
    monkeypatch.setattr(control, "UNZIPPED_MAX_BYTES", 100)
    (world.code / "app.py").write_text("#" * 60)
    await world.start(world.specs(world.layer("one", "#" * 50)))
    assert "The actual size is 110 bytes" in world.latest().unrunnable


async def test_layers_stay_while_the_file_has_them_and_go_with_a_version(world, monkeypatch):
    one, two = world.layer("one"), world.layer("two", "x", "bin/x")
    await world.start(world.specs(one, two))
    made = await world.json("POST", f"{FUNCTIONS}/file/versions", {}, 201)
    assert [layer["Arn"].rpartition(":")[2] for layer in made["Layers"]] == ["one", "two"]
    (kept,) = world.catalog.get("file").versions.values()
    assert kept.opt == world.latest().opt
    assert (await world.json("POST", f"{FUNCTIONS}/file/versions", {}, 201))["Version"] == "1", "nothing has changed"
    world.layer("one", "VALUE = 2")
    await world.layers_of_file.apply(world.catalog)
    assert (await world.json("POST", f"{FUNCTIONS}/file/versions", {}, 201))["Version"] == "2"

    await world.made._collect()
    now = world.world.clock.monotonic()
    monkeypatch.setattr(world.world.clock, "monotonic", lambda: now + control.PACKAGE_KEPT_S + 1)
    await world.made._collect()
    assert {value(world.latest()), value(kept)} == {"VALUE = 1", "VALUE = 2"}


async def test_a_lost_package_of_a_version_is_told_with_the_layers_name(world):
    await world.start()
    await world.publish()
    key = next(iter(world.made.layers.packages()))
    (world.packages._folder / key / "package.zip").unlink()
    again = World(world.folder)
    again.made.layers._store = world.layers
    await again.start(again.specs(ARN))
    assert f"layer {ARN}: the package {key} is lost or damaged" in again.latest().unrunnable
    again.catalog.put_layers("nobody", layers=[], opt="", trouble="")
    await again.world.close()


async def test_a_layer_of_another_account_is_usable_where_its_policy_says_so(world):
    await world.start()
    made = await world.publish()
    (version,) = world.made.layers.versions(next(iter(world.made.layers.names("000000000000", "us-east-1"))))
    await world.made.layers.put(replace(version, layer=version.layer._replace(account="111122223333")))
    other = made["LayerVersionArn"].replace("000000000000", "111122223333")
    with pytest.raises(ConfigErrors, match="not authorized to perform: lambda:GetLayerVersion"):
        await world.take(world.specs(other))
