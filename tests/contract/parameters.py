"""Every parameter of an event source mapping, proved: values of a setting, and what is seen of each."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import botocore.session

from bridge.daemon.trial import BridgeApp


def batches(*values: object) -> Callable[[BridgeApp], object]:
    """Put values and return the batches that the function is given."""

    def see(app: BridgeApp) -> object:
        for value in values:
            app.put("m", value, key="ada")
        app.drain()
        return [call.values for call in app.invocations]

    return see


def given_up(app: BridgeApp) -> object:
    """Put a record that fails and return why, and after how many tries, it is given up; nothing: it never is."""
    app.put("m", "bad")
    app.drain(attempts=30)
    return [(letter.condition, letter.attempts) for letter in app.dead_letters]


def given_up_at_an_age(app: BridgeApp) -> object:
    """As `given_up`, with the minutes that it took."""
    began = app.now
    app.put("m", "bad")
    app.drain(attempts=30)
    return [(letter.condition, (app.now - began) // 61) for letter in app.dead_letters]


def two_records_three_seconds_apart(app: BridgeApp) -> object:
    app.put("m", 1)
    app.advance(3)
    return batches(2)(app)


def a_key_beside_one_that_fails(app: BridgeApp) -> object:
    app.put("m", "bad", key="ada")
    app.put("m", "good", key="bob")
    app.drain()
    return [call.values for call in app.invocations if call.error is None]


def who_is_invoked(app: BridgeApp) -> object:
    batches(1)(app)
    return [call.function for call in app.invocations]


def what_waits(app: BridgeApp) -> object:
    app.put("m", 1)
    return app.drain()


@dataclass(frozen=True)
class Proof:
    """Settings of a mapping, each with what is seen of it."""

    parameter: str
    see: Callable[[BridgeApp], object]
    outcomes: Mapping[str, object]
    also: str = ""
    """What all of them need beside it."""


def members(shape: Any, *, before: str = "") -> Iterator[str]:
    """Yield the names in a request, `Outer.Inner` within structures; what is within lists and maps belongs to them."""
    for name, member in shape.members.items():
        if member.type_name == "structure":
            yield from members(member, before=f"{before}{name}.")
        else:
            yield before + name


def known_parameters() -> dict[str, str]:
    """Return the parameters of CreateEventSourceMapping as botocore has them, and each between dots."""
    operation = botocore.session.get_session().get_service_model("lambda").operation_model("CreateEventSourceMapping")
    return {name: f".{name}." for name in members(operation.input_shape)}
