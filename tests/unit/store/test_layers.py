"""Layers in SQLite: kept with their policies, deleted, numbers that outlive them, and a damaged row."""

import sqlite3
from dataclasses import replace

import pytest

from bridge.core.errors import StoreCorrupt
from bridge.registry.layers import LayerName, LayerStatement, LayerVersion
from bridge.store.functions import SqliteFunctions
from bridge.store.layers import SqliteLayers

LAYER = LayerName("000000000000", "us-east-1", "tools")


def version(number, **more):
    return LayerVersion(layer=LAYER, version=number, package="ab" * 32, code_size=7, created_at="now", **more)


@pytest.fixture
async def opened(tmp_path):
    functions = await SqliteFunctions.open(tmp_path / "catalog.db")
    yield SqliteLayers(functions.database)
    await functions.close()


async def test_what_is_kept(opened, tmp_path):
    first = version(1, runtimes=["python3.13"], license_info="MIT")
    shared = replace(first, statements={"s": LayerStatement(principal="*")}, policy_revision="r")
    for each in (first, version(2), shared):
        await opened.save(each)
    await opened.delete(version(2))
    await opened.delete(version(9))
    assert await opened.load() == ([shared], {LAYER: 2})
    again = await SqliteFunctions.open(tmp_path / "catalog.db")
    assert await SqliteLayers(again.database).load() == ([shared], {LAYER: 2})
    await again.close()


async def test_a_row_that_is_none(opened, tmp_path):
    await opened.save(version(1))
    with sqlite3.connect(tmp_path / "catalog.db") as connection:
        connection.execute("UPDATE layers SET document = x'7b7d'")
    connection.close()
    with pytest.raises(StoreCorrupt, match="a layer that cannot be read"):
        await opened.load()
