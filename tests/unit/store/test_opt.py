"""Merged layers: order, files against folders, links instead of copies; and what a start throws away."""

import os
import stat

import pytest

from bridge.core.errors import StoreCorrupt
from bridge.store import opt
from bridge.store.opt import merge
from bridge.store.packages import PackageStore
from tests.zips import zipped


def tree(root, **files):
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def files(root):
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def _writable(tmp_path):
    yield
    for folder, _, _ in os.walk(tmp_path):
        os.chmod(folder, 0o700)


def test_a_later_layer_wins(tmp_path):
    first = tree(tmp_path / "1", python__a="1", python__b="1", bin__tool="1")
    second = tree(tmp_path / "2", python__b="2", lib__c="2")
    merge([first, second], tmp_path / "opt")
    assert files(tmp_path / "opt") == {"python/a": "1", "python/b": "2", "bin/tool": "1", "lib/c": "2"}
    assert (tmp_path / "opt" / "python" / "a").stat().st_ino == (first / "python" / "a").stat().st_ino
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "opt").rglob("*") if path.is_dir()} == {0o555}


def test_a_file_where_there_was_a_folder_and_a_folder_where_there_was_a_file(tmp_path):
    first = tree(tmp_path / "1", a__b__c="1", a__d="1", x="1")
    second = tree(tmp_path / "2", a="2", x__y__z="2")
    merge([first, second], tmp_path / "opt")
    assert files(tmp_path / "opt") == {"a": "2", "x/y/z": "2"}
    merge([first, second, first], tmp_path / "again")
    assert files(tmp_path / "again") == files(first)


def test_where_there_are_no_links_files_are_copied(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no links here")

    monkeypatch.setattr(opt.os, "link", refuse)
    first = tree(tmp_path / "1", tool="1")
    (first / "tool").chmod(0o755)
    merge([first, tree(tmp_path / "2", b="2")], tmp_path / "opt")
    assert files(tmp_path / "opt") == {"tool": "1", "b": "2"}
    assert os.access(tmp_path / "opt" / "tool", os.X_OK)


@pytest.fixture
def store(tmp_path):
    made = PackageStore(tmp_path / "packages")
    made.open()
    return made


def package(store, tmp_path, name, content):
    path = tmp_path / f"{content}.zip"
    path.write_bytes(zipped({name: content}))
    return store.add(path).key


def test_the_store_merges_once_and_anew_at_each_start(store, tmp_path):
    one, two = package(store, tmp_path, "a", "one"), package(store, tmp_path, "a", "two!")
    assert store.opt([one]) == store.get(one).code
    merged = store.opt([one, two])
    assert store.opt([one, two]) == merged
    assert files(merged) == {"a": "two!"}
    assert files(store.opt([two, one])) == {"a": "one"}
    assert len(store.keys()) == 4
    assert (store.unzipped_size(one), store.unzipped_size(two)) == (3, 4)
    store.open([one, two])
    assert store.keys() == {one, two}
    store.opt([one, two])
    store.remove(merged.name)
    assert store.keys() == {one, two}
    with pytest.raises(StoreCorrupt):
        store.opt([one, "none"])
