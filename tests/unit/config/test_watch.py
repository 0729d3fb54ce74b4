"""--watch: every way in which files are edited is told, once things are quiet."""

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from bridge.config import watch as module
from bridge.config.watch import Edited, watch

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "RECHECK_MS", 100)


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "app.py").write_text("x = 1\n")
    return {"a": tmp_path / "a", "b": tmp_path / "b"}


class Watched:
    """Edits as they come; `until` waits for what is expected and allows nothing else."""

    def __init__(self, edits):
        self._edits = edits
        self._next = None

    async def started(self):
        """Let the kernel begin to watch."""
        self._next = asyncio.ensure_future(anext(self._edits))
        done, _ = await asyncio.wait({self._next}, timeout=0.3)
        assert not done

    async def until(self, *, functions: set[str] = frozenset(), config: bool = False):
        seen = Edited()
        async with asyncio.timeout(60):
            while seen != Edited(functions=frozenset(functions), config=config):
                edit = await (self._next or anext(self._edits))
                self._next = None
                seen = Edited(functions=seen.functions | edit.functions, config=seen.config or edit.config)
                assert seen.functions <= set(functions)

    async def close(self):
        if self._next is not None:
            self._next.cancel()
            await asyncio.gather(self._next, return_exceptions=True)


@pytest.fixture
async def start():
    opened = []

    async def begin(*args, **options) -> Watched:
        edits = watch(*args, **options)
        watched = Watched(edits)
        opened.append((edits, watched))
        await watched.started()
        return watched

    yield begin
    for edits, watched in opened:
        await watched.close()
        async with aclosing(edits):
            pass


async def test_an_edited_function(folders, start):
    watched = await start(folders)
    (folders["a"] / "app.py").write_text("x = 2\n")

    await watched.until(functions={"a"})


async def test_two_functions_in_one_folder(folders, start):
    watched = await start({"one": folders["a"], "two": folders["a"]})
    (folders["a"] / "new.py").write_text("x = 2\n")

    await watched.until(functions={"one", "two"})


async def test_what_comes_into_a_marked_folder(folders, start, tmp_path):
    (tmp_path / "packages" / "deep").mkdir(parents=True)
    watched = await start({"a": folders["a"]}, marks={"b": tmp_path / "packages"})
    (tmp_path / "packages" / "deep" / "unseen.py").touch()
    (tmp_path / "packages" / "new.py").touch()

    await watched.until(functions={"b"})


async def test_an_edited_configuration(folders, start, tmp_path):
    config = tmp_path / "bridge.toml"
    config.write_text("a")
    watched = await start(folders, config)
    config.write_text("b")

    await watched.until(config=True)


async def test_a_configuration_replaced_by_a_rename_and_then_edited(folders, start, tmp_path):
    config = tmp_path / "bridge.toml"
    config.write_text("a")
    watched = await start(folders, config)
    for text in ("b", "c"):
        (tmp_path / "new.toml").write_text(text)
        (tmp_path / "new.toml").rename(config)
        await watched.until(config=True)


async def test_a_folder_that_vanishes_and_comes_back(folders, start, tmp_path):
    watched = await start(folders)
    folders["b"].rename(tmp_path / "away")
    await watched.until(functions={"b"})
    (tmp_path / "away").rename(folders["b"])
    await watched.until(functions={"b"})
    (folders["b"] / "app.py").write_text("x = 3\n")
    await watched.until(functions={"b"})


async def test_a_link_that_is_turned(folders, start, tmp_path):
    link = tmp_path / "current"
    link.symlink_to("a")
    watched = await start({"f": link})
    link.unlink()
    link.symlink_to("b")
    await watched.until(functions={"f"})
    (folders["b"] / "app.py").write_text("x = 3\n")
    await watched.until(functions={"f"})


async def test_nothing_to_watch_yet(start, tmp_path):
    watched = await start({"f": tmp_path / "later"})
    (tmp_path / "later").mkdir()

    await watched.until(functions={"f"})


async def test_byte_code_is_no_edit(folders, start):
    watched = await start(folders)
    (folders["a"] / "__pycache__").mkdir()
    (folders["a"] / "__pycache__" / "app.cpython-311.pyc").write_text("x")
    (folders["b"] / "app.py").write_text("x = 2\n")

    await watched.until(functions={"b"})
