"""--watch: an edited layer and an edited file, told to the parts that know what to do."""

import asyncio
from types import SimpleNamespace

from bridge.api.app import ReloadResult
from bridge.config.watch import Edited
from bridge.core.function import Interpreter
from bridge.daemon import edits as module
from bridge.daemon.edits import Edits
from bridge.registry.catalog import FunctionCatalog, FunctionSpec
from bridge.testing.clock import ManualClock
from tests.harness import wait_until, write_function


class World:
    """Parts that remember what they are told, and edits that come when a test says so."""

    def __init__(self, folder, monkeypatch, *, interpreter=None):
        self.told, self.reloaded, self.watched = [], [], []
        self.edits = asyncio.Queue()
        layer = folder / "layer"
        layer.mkdir()
        code = write_function(folder / "code", "def handler(event, context): pass\n")
        self.layer = str(layer)
        catalog = FunctionCatalog.from_specs(
            [FunctionSpec(name="f", code=code, handler="app.handler", layers=[self.layer], interpreter=interpreter)]
        )
        parts = SimpleNamespace(
            catalog=catalog, file_layers=SimpleNamespace(apply=self.apply), function_changed=self.told.append
        )
        self.tasks = []
        self.under_test = Edits(
            parts, config_path=folder / "bridge.toml", spawn=self.spawn, clock=ManualClock(), reload=self.reload
        )
        monkeypatch.setattr(module, "watch", self.watch)

    def spawn(self, work, name):
        task = asyncio.create_task(work, name=name)
        self.tasks.append(task)
        return task

    async def watch(self, folders, config, *, marks):
        self.watched.append(folders)
        self.marks = marks
        while True:
            yield await self.edits.get()

    async def apply(self, catalog, *, only):
        return frozenset({"f"}) if only == self.layer else frozenset()

    async def reload(self):
        self.under_test.start()
        await asyncio.sleep(0)  # as a reload goes on after it
        self.reloaded.append(True)
        return ReloadResult(ok=True)

    async def close(self):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def test_an_edited_layer_retires_the_workers_of_those_that_have_it(tmp_path, monkeypatch):
    world = World(tmp_path, monkeypatch)
    world.under_test.start()
    world.edits.put_nowait(Edited(functions=frozenset({f"layer:{world.layer}"})))
    await wait_until(lambda: world.told == ["f"], description="the function has changed")
    assert set(world.watched[0]) == {"f", f"layer:{world.layer}"}
    await world.close()


async def test_packages_that_come_into_a_virtual_environment_retire_the_workers(tmp_path, monkeypatch):
    site = tmp_path / "venv" / "lib" / "python3.13" / "site-packages"
    site.mkdir(parents=True)
    one = Interpreter(program="", version="3.13", prefix="", virtualenv=str(tmp_path / "venv"))
    world = World(tmp_path, monkeypatch, interpreter=one)
    world.under_test.start()
    await wait_until(lambda: world.watched, description="it watches")
    assert world.marks == {"f": site}

    (site / "new.py").touch()
    world.edits.put_nowait(Edited(functions=frozenset({"f"})))
    await wait_until(lambda: world.told == ["f"], description="the function has changed")
    await world.close()


async def test_a_reload_by_an_edited_file_is_not_cut_off_by_the_watch_it_starts(tmp_path, monkeypatch):
    world = World(tmp_path, monkeypatch)
    world.under_test.start()
    world.edits.put_nowait(Edited(config=True))
    await wait_until(lambda: world.reloaded == [True] and len(world.watched) == 2, description="the reload has ended")
    await world.close()


async def test_a_file_that_is_saved_while_its_own_reload_runs_is_taken_once_more(tmp_path, monkeypatch):
    world = World(tmp_path, monkeypatch)
    file, clock = tmp_path / "bridge.toml", world.under_test._clock
    file.write_text("one")
    saves = ["two, saved meanwhile"]

    async def reload():
        world.under_test.reading()
        world.reloaded.append(file.read_text())
        if saves:
            file.write_text(saves.pop())
        world.under_test.start()
        return ReloadResult(ok=True)

    world.under_test._reload = reload
    world.under_test.start()
    await clock.advance(5)
    assert world.reloaded == [], "nobody has read it yet"
    world.edits.put_nowait(Edited(config=True))

    async def passed():
        await clock.advance(1)
        return len(world.reloaded) == 2

    await wait_until(passed, description="it is read again")
    await clock.advance(10)
    assert world.reloaded == ["one", "two, saved meanwhile"], "and then no more"
    await world.close()
