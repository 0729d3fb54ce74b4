"""Which shards may be read: never a child before its parents are finished, and in the end each of them once."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.stream import BEFORE_ALL, Mark
from bridge.sources.pull.lineage import ListedShard, first_marks, forgettable, predecessors, startable


def listed(*shards: tuple[str, tuple[str, ...]], closed: str = "") -> dict[str, ListedShard]:
    return {
        name: ListedShard(name=name, parents=parents, first=number, last=number if name in closed else None)
        for number, (name, parents) in enumerate(shards)
    }


SPLIT = listed(("a", ()), ("b", ("a",)), ("c", ("a",)), closed="a")
ENDED = Mark(position=9, has_ended=True)
OPEN = Mark(position=9)


def test_a_child_waits_for_its_parent() -> None:
    assert startable(SPLIT, {"a": OPEN}, set()) == ["a"]
    assert startable(SPLIT, {"a": OPEN}, {"a"}) == []
    assert startable(SPLIT, {"a": ENDED}, set()) == ["b", "c"]
    assert startable(SPLIT, {"a": ENDED, "b": OPEN}, {"b"}) == ["c"]


def test_a_merged_shard_waits_for_both() -> None:
    merged = listed(("a", ()), ("b", ()), ("c", ("a", "b")), closed="ab")

    assert startable(merged, {"a": ENDED, "b": OPEN}, {"b"}) == []
    assert startable(merged, {"a": ENDED, "b": ENDED}, set()) == ["c"]


def test_a_parent_that_is_listed_no_more_is_finished_unless_its_mark_says_else() -> None:
    left = {name: SPLIT[name] for name in "bc"}

    assert startable(left, {}, set()) == ["b", "c"]
    assert startable(left, {"a": OPEN}, set()) == ["a"]


def test_what_comes_before_a_shard_with_a_mark_is_finished() -> None:
    chain = listed(("a", ()), ("b", ("a",)), ("c", ("b",)), ("d", ("b",)), closed="ab")

    assert startable(chain, {"c": OPEN}, {"c"}) == ["d"]


def test_from_the_latest_on_closed_shards_are_finished() -> None:
    marks = first_marks(SPLIT, latest={"b": 7})

    assert marks == {
        "a": Mark(position=BEFORE_ALL, has_ended=True),
        "b": Mark(position=7),
        "c": Mark(position=BEFORE_ALL),
    }
    assert startable(SPLIT, marks, set()) == ["b", "c"]


def test_a_mark_is_forgotten_once_its_shard_is_gone_and_its_children_have_begun() -> None:
    left = {name: SPLIT[name] for name in "bc"}

    assert forgettable(SPLIT, {"a": ENDED, "b": OPEN, "c": OPEN}) == set()
    assert forgettable(left, {"a": ENDED, "b": OPEN}) == set()
    assert forgettable(left, {"a": OPEN, "b": OPEN, "c": OPEN}) == set()
    assert forgettable(left, {"a": ENDED, "b": OPEN, "c": OPEN}) == {"a"}


def test_what_follows_what_also_over_shards_between() -> None:
    chain = listed(("a", ()), ("b", ("a",)), ("c", ("b",)), closed="ab")

    assert predecessors(chain, {"a", "c"}) == {"c": frozenset({"a"})}


@given(st.data())
def test_any_reshards_in_any_order_with_any_restarts_are_read_parents_first_and_each_once(data: st.DataObject) -> None:
    shards: dict[str, ListedShard] = {}
    unlisted: set[str] = set()
    marks: dict[str, Mark] = {}
    owned: set[str] = set()
    began: list[str] = []

    def add(*parents: str) -> None:
        number = len(shards)
        for parent in parents:
            shards[parent] = ListedShard(
                name=parent, parents=shards[parent].parents, first=shards[parent].first, last=number
            )
        shards[f"s{number}"] = ListedShard(name=f"s{number}", parents=parents, first=number)

    def listing() -> dict[str, ListedShard]:
        return {name: shard for name, shard in shards.items() if name not in unlisted}

    def look() -> None:
        for name in startable(listing(), marks, owned):
            parents = set(shards[name].parents)
            assert not parents & owned, "before its parents are finished"
            assert all(parent in unlisted or marks.get(parent, ENDED).has_ended for parent in parents)
            owned.add(name)
            began.append(name)
            marks.setdefault(name, Mark(position=shards[name].first - 1))
        for name in forgettable(listing(), marks) - owned:
            del marks[name]

    def finish() -> None:
        closed = sorted(name for name in owned if shards[name].is_closed)
        if closed:
            name = data.draw(st.sampled_from(closed))
            owned.discard(name)
            marks[name] = Mark(position=shards[name].first, has_ended=True)

    add()
    add()
    marks.update(first_marks(listing()))
    for _ in range(data.draw(st.integers(0, 30))):
        step = data.draw(st.sampled_from(["split", "merge", "look", "finish", "restart", "retention"]))
        is_open = [name for name, shard in shards.items() if not shard.is_closed]
        if step == "split":
            parent = data.draw(st.sampled_from(is_open))
            add(parent)
            shards[f"s{len(shards)}"] = ListedShard(name=f"s{len(shards)}", parents=(parent,), first=len(shards))
        elif step == "merge" and len(is_open) > 1:
            add(*data.draw(st.lists(st.sampled_from(is_open), min_size=2, max_size=2, unique=True)))
        elif step == "look":
            look()
        elif step == "finish":
            finish()
        elif step == "restart":
            for name in owned:
                began.remove(name)
            owned.clear()
        elif step == "retention":
            gone = [name for name, shard in shards.items() if name in began and shard.is_closed and name not in owned]
            unlisted.update(gone[: data.draw(st.integers(0, 2))])
    for _ in range(3 * len(shards)):
        look()
        finish()

    assert sorted(began) == sorted(shards), "each of them, once"
    assert owned == {name for name, shard in shards.items() if not shard.is_closed}
