"""Packages on disk: by their hash, whole or not there, read-only, mended from their zip, and never written outside."""

import base64
import hashlib
import io
import os
import stat
import zipfile

import pytest

from bridge.core.errors import StoreCorrupt, StoreError
from bridge.registry.packages import code_sha256
from bridge.registry.zips import ZipRefused
from bridge.store.packages import PackageStore
from tests.zips import zipped


@pytest.fixture
def store(tmp_path):
    made = PackageStore(tmp_path / "packages")
    made.open()
    yield made
    for key in made.keys():
        made.remove(key)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(zipped({"app.py": "print(1)", "lib/mod.py": "two", "run.py": "#!"}))
    return path


def test_a_package_is_named_by_its_hash_and_read_only(store, file):
    package = store.add(file)
    digest = hashlib.sha256(file.read_bytes())
    assert (package.key, code_sha256(package.key)) == (digest.hexdigest(), base64.b64encode(digest.digest()).decode())
    assert package.size == file.stat().st_size
    assert package.zip.read_bytes() == file.read_bytes()
    modes = {str(path.relative_to(package.code)): stat.S_IMODE(path.stat().st_mode) for path in package.code.rglob("*")}
    assert modes == {"app.py": 0o444, "lib": 0o555, "lib/mod.py": 0o444, "run.py": 0o555}
    assert stat.S_IMODE(package.code.stat().st_mode) == 0o555
    assert (package.code / "lib/mod.py").read_text() == "two"


def test_the_same_zip_is_unzipped_once(store, file):
    inode = store.add(file).code.stat().st_ino
    assert store.add(file).code.stat().st_ino == inode
    assert len(store.keys()) == 1


def test_what_is_refused_leaves_nothing(store, tmp_path):
    bad = tmp_path / "bad.zip"
    with zipfile.ZipFile(bad, "w") as archive:
        archive.writestr("ok.py", "fine")
        archive.writestr("../../escaped.py", "not fine")
    with pytest.raises(ZipRefused):
        store.add(bad)
    assert list((tmp_path / "packages").iterdir()) == []
    assert not (tmp_path / "escaped.py").exists()


def test_damage_within_is_refused_after_a_part_was_written(store, tmp_path):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("a.py", "first")
        archive.writestr("b.py", "second")
    bad = tmp_path / "bad.zip"
    bad.write_bytes(data.getvalue().replace(b"second", b"sECOND"))
    with pytest.raises(ZipRefused):
        store.add(bad)
    assert list((tmp_path / "packages").iterdir()) == []


def test_a_crash_before_the_rename_leaves_nothing_behind(tmp_path, file):
    (tmp_path / "packages" / ".new-1234" / "code").mkdir(parents=True)
    (tmp_path / "packages" / ".new-1234" / "code" / "app.py").write_text("half")
    store = PackageStore(tmp_path / "packages")
    assert store.open() == frozenset()
    assert list((tmp_path / "packages").iterdir()) == []


@pytest.mark.parametrize("harm", ["content", "more", "less", "mode", "digest"])
def test_files_that_differ_are_unzipped_anew(store, file, harm):
    package = store.add(file)
    target = package.code / "app.py"
    if harm == "digest":
        (package.code.parent / "digest").write_text("other")
    else:
        package.code.chmod(0o755)
        target.chmod(0o755 if harm == "mode" else 0o644)
        if harm == "content":
            target.write_text("print(2)")
        elif harm == "more":
            (package.code / "more.py").symlink_to("/etc/passwd")
        elif harm == "less":
            target.unlink()
    assert store.open([package.key]) == frozenset()
    assert sorted(os.listdir(package.code)) == ["app.py", "lib", "run.py"]
    assert (target.read_text(), stat.S_IMODE(target.stat().st_mode)) == ("print(1)", 0o444)


def test_a_zip_with_other_bytes_is_lost_until_it_is_given_again(store, file):
    package = store.add(file)
    package.zip.write_bytes(b"other")
    assert store.open([package.key, "0" * 64]) == {package.key, "0" * 64}
    assert store.add(file).zip.read_bytes() == file.read_bytes()
    assert store.open([package.key]) == frozenset()


def test_removed_is_gone(store, file):
    package = store.add(file)
    store.remove(package.key)
    store.remove(package.key)
    assert not package.code.exists()
    with pytest.raises(StoreCorrupt):
        store.get(package.key)


def test_a_folder_that_cannot_be_used(tmp_path):
    (tmp_path / "packages").write_text("a file")
    with pytest.raises(StoreError):
        PackageStore(tmp_path / "packages").open()
