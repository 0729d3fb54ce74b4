"""No two functions of a daemon run under one user id, before and after a restart."""

import zlib

import pytest

from bridge.core.errors import RuntimeUnavailable
from bridge.runtime import users
from bridge.runtime.users import Users


def colliding(count):
    """Return `count` names whose checksums point at the same id."""
    found = {}
    number = 0
    while True:
        name = f"function-{number}"
        names = found.setdefault(zlib.crc32(name.encode()) % users.COUNT, [])
        names.append(name)
        if len(names) == count:
            return names
        number += 1


def test_names_whose_checksums_collide_get_different_ids(tmp_path):
    names = colliding(3)
    given = Users(tmp_path / "users")

    ids = [given.of(name) for name in names]

    assert len(set(ids)) == 3
    assert ids[0] == users.FIRST + zlib.crc32(names[0].encode()) % users.COUNT
    assert ids == [given.of(name) for name in names]


def test_ids_outlive_the_daemon_whoever_asks_first(tmp_path):
    names = colliding(3)
    before = {name: Users(tmp_path / "users").of(name) for name in names}

    again = Users(tmp_path / "users")

    assert {name: again.of(name) for name in reversed(names)} == before


def test_the_last_id_is_followed_by_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(users, "COUNT", 3)
    given = Users(tmp_path / "users")

    assert {given.of(name) for name in "abc"} == {users.FIRST, users.FIRST + 1, users.FIRST + 2}
    with pytest.raises(RuntimeUnavailable, match="user id"):
        given.of("d")


def test_a_torn_or_foreign_line_takes_nothing_from_anybody(tmp_path):
    path = tmp_path / "users"
    path.write_text("30001 one\n30001 two\n5 root\nnonsense\n30002 one\n30003")
    given = Users(path)

    assert given.of("one") == 30_001
    assert len({given.of(name) for name in ("one", "two", "root", "nonsense")}) == 4
    assert all(users.FIRST <= given.of(name) < users.FIRST + users.COUNT for name in ("two", "root", "nonsense"))
    again = Users(path)
    assert [again.of(name) for name in ("one", "two", "root")] == [given.of(name) for name in ("one", "two", "root")]


def test_a_full_disk_costs_the_memory_not_the_difference(tmp_path):
    given = Users(tmp_path / "missing" / "users")
    names = colliding(2)

    assert given.of(names[0]) != given.of(names[1])
