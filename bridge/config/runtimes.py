"""`[runtimes]`: what runs functions of a runtime, where it is neither the daemon's Python nor the Node.js on PATH."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

from pydantic import AfterValidator, PlainValidator, ValidationInfo, WithJsonSchema

from bridge.config.files import beside
from bridge.config.mistakes import Loc, near
from bridge.config.tree import table, tables
from bridge.config.values import refuse, surroundings
from bridge.core.errors import ConfigError
from bridge.core.function import Interpreter
from bridge.registry.interpreters import (
    COMMAND_MAX,
    MAPPED_RUNTIMES,
    NATIVE_RUNTIMES,
    OWN,
    RUNTIMES,
    found,
    named,
    trouble,
)

if TYPE_CHECKING:
    from bridge.config.settings import Settings


def checked_runtime(name: str) -> str:
    """Return one of AWS's names of runtimes, or nothing; refuses any other."""
    if name and name not in RUNTIMES:
        refuse(f"no runtime of AWS's{near(name, RUNTIMES) or ': such as python3.13, nodejs22.x, provided.al2023'}")
    return name


def _checked_name(name: str) -> str:
    if not name:
        refuse("must be a runtime, such as python3.13 or nodejs22.x")
    if checked_runtime(name) in NATIVE_RUNTIMES:
        refuse("functions of this runtime bring their own program: there is nothing to map")
    return name


def _interpreter(value: Any, info: ValidationInfo) -> str | tuple[str, ...]:
    written = _written(value)
    if written is None:
        refuse(f'must be a path, "{OWN}" for the Python that bridge runs on, or {{ command = ["program", "..."] }}')
    return _resolved(surroundings(info).folder, written)


def _written(value: Any) -> str | list[str] | None:
    """Return what a value of the file says; None: it is no such value."""
    words = value["command"] if isinstance(value, dict) and value.keys() == {"command"} else [value]
    if not isinstance(words, list) or not 0 < len(words) <= COMMAND_MAX:
        return None
    if not all(isinstance(word, str) and word and "\0" not in word for word in words):
        return None
    return words if isinstance(value, dict) else str(value)


def _resolved(folder: Path, written: str | list[str]) -> str | tuple[str, ...]:
    if isinstance(written, str):
        return OWN if written == OWN else str(beside(folder, written))
    return str(beside(folder, written[0])), *written[1:]


_SCHEMA: Final = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "properties": {"command": {"type": "array", "items": {"type": "string"}, "minItems": 1}},
            "required": ["command"],
            "additionalProperties": False,
        },
    ]
}
RuntimeName: TypeAlias = Annotated[str, AfterValidator(_checked_name)]
InterpreterValue: TypeAlias = Annotated[str | tuple[str, ...], PlainValidator(_interpreter), WithJsonSchema(_SCHEMA)]


def mistakes(data: Mapping[str, Any], folder: Path) -> Iterator[tuple[Loc, str]]:
    """Yield what keeps an interpreter from running functions, and functions from being run by one.

    Each interpreter is run once to see what it is.
    """
    mapped: dict[str, Interpreter] = {}
    for name, value in table(data, "runtimes").items():
        written = _written(value)
        if written is None or name not in MAPPED_RUNTIMES:
            continue  # told by the section
        try:
            mapped[name] = named(name, _resolved(folder, written))
        except ConfigError as error:
            text = str(error)
            yield ("runtimes", name), text if text.isprintable() else ascii(text)
    for name, function in tables(data, "functions"):
        runtime = function.get("runtime")
        if not isinstance(runtime, str) or runtime not in RUNTIMES or runtime in table(data, "runtimes"):
            continue
        if text := trouble(runtime, found(runtime, mapped)).partition(": ")[2]:
            yield ("functions", name, "runtime"), text


def interpreters(settings: "Settings") -> dict[str, Interpreter]:
    """Return the interpreters by the runtimes they run (blocking). Raises ConfigError."""
    return {name: named(name, written) for name, written in settings.runtimes.items()}
