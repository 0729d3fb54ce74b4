"""What `bridge doctor` finds in catalog.db and among the packages: missing ones, other hashes, orphans, damage."""

import pytest

from bridge.core.errors import StoreError
from bridge.registry.made import MadeFunction, MadeVersion
from bridge.store.functions import SqliteFunctions
from bridge.store.inspection import inspect_catalog
from bridge.store.packages import PackageStore
from tests.zips import zipped


@pytest.fixture
async def kept(tmp_path):
    """Return a function's package and one that nothing names."""
    packages = PackageStore(tmp_path / "packages")
    packages.open()
    found = []
    for text in ("one", "two"):
        (tmp_path / "given.zip").write_bytes(zipped({"app.py": text}))
        found.append(packages.add(tmp_path / "given.zip"))
    store = await SqliteFunctions.open(tmp_path / "catalog.db")
    latest = MadeVersion(settings={"Runtime": "python3.13"}, package=found[0].key, code_size=1, modified_at="")
    await store.save("made", before=None, after=MadeFunction(name="made", latest=latest))
    await store.close()
    return found[0]


def look(folder):
    return inspect_catalog(folder / "catalog.db", folder / "packages")


def test_nothing_was_made(tmp_path):
    assert look(tmp_path) is None


async def test_all_is_well_but_for_an_orphan(tmp_path, kept):
    found = look(tmp_path)
    assert (found.functions, found.packages, found.problems, found.orphans) == (1, 1, (), 1)


async def test_a_package_that_is_not_what_its_name_says(tmp_path, kept):
    kept.zip.write_bytes(b"other")
    assert look(tmp_path).problems == (
        f"function made: package {kept.key} has another hash than its name; give the code again",
    )
    kept.zip.unlink()
    assert look(tmp_path).problems[0].endswith("is missing; give the code again")


async def test_files_that_are_not_the_zips(tmp_path, kept):
    (kept.code / "app.py").chmod(0o644)
    (kept.code / "app.py").write_text("changed")
    assert look(tmp_path).problems[0].endswith("the next start unzips it anew")


async def test_a_damaged_database(tmp_path, kept):
    (tmp_path / "catalog.db").write_bytes(b"x" * 8192)
    with pytest.raises(StoreError):
        look(tmp_path)
