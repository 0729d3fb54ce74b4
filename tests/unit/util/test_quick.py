import dataclasses
import inspect

import pytest

from bridge.core.invocation import Attempt, AttemptStatus, Invocation
from bridge.core.record import Record
from bridge.util.quick import maker


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    name: str
    size: int = 7
    words: tuple[str, ...] = ()


def test_what_is_made_equals_what_the_constructor_makes():
    make = maker(Thing)

    assert make(name="a") == Thing(name="a")
    assert make(name="a", size=1, words=("b",)) == Thing(name="a", size=1, words=("b",))
    assert type(make(name="a")) is Thing
    assert hash(make(name="a")) == hash(Thing(name="a"))
    assert dataclasses.replace(make(name="a"), size=8) == Thing(name="a", size=8)


def test_what_is_made_is_as_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        maker(Thing)(name="a").size = 1


@pytest.mark.parametrize("arguments", [{}, {"name": "a", "other": 1}])
def test_missing_and_unknown_fields_are_mistakes(arguments):
    with pytest.raises(TypeError):
        maker(Thing)(**arguments)


@pytest.mark.parametrize("cls", [Attempt, Invocation, Record])
def test_every_field_has_the_constructors_default(cls):
    def defaults(function):
        return {name: each.default for name, each in inspect.signature(function).parameters.items()}

    assert defaults(maker(cls)) == defaults(cls)


def test_an_attempt():
    fields = {
        "position": -1, "request_id": "a", "function": "f", "number": 1, "status": AttemptStatus.OK, "started_at": 1.5,
    }  # fmt: skip

    assert maker(Attempt)(**fields) == Attempt(**fields)
