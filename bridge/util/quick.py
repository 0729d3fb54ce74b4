"""Makes frozen dataclasses quickly: what a hot path makes of each event is a good part of its time."""

import dataclasses
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")


def maker(cls: Callable[P, T]) -> Callable[P, T]:
    """Return what makes values of a frozen dataclass as its constructor does, by keywords, in half the time.

    The `__init__` of a frozen one looks up `object.__setattr__` for each field. Here the fields of a twin that is not
    frozen are set, and the value becomes one of `cls` before anybody sees it.

    Args:
        cls: with slots, all of its own, and without defaults that are made anew each time.
    """
    assert isinstance(cls, type), cls

    def freeze(self: Any) -> None:
        self.__class__ = cls

    fields = [(each.name, each.type, dataclasses.field(default=each.default)) for each in dataclasses.fields(cls)]
    twin = dataclasses.make_dataclass(
        cls.__name__, fields, namespace={"__post_init__": freeze}, slots=True, kw_only=True, eq=False
    )
    assert not any(each.default_factory is not dataclasses.MISSING for each in dataclasses.fields(cls)), cls
    return cast("Callable[P, T]", twin)
