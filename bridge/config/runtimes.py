"""`[runtimes]`: which interpreter runs functions of a runtime, where it is not the Python of the daemon."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import AfterValidator, PlainValidator, ValidationInfo, WithJsonSchema

from bridge.config.files import beside
from bridge.config.mistakes import Loc, near
from bridge.config.tree import table
from bridge.config.values import refuse, surroundings
from bridge.core.errors import ConfigError
from bridge.core.function import Interpreter
from bridge.registry.interpreters import OWN, PYTHON_RUNTIMES, interpreter

if TYPE_CHECKING:
    from bridge.config.settings import Settings


def _checked_name(name: str) -> str:
    if name not in PYTHON_RUNTIMES:
        refuse(f"no runtime that Python can run{near(name, PYTHON_RUNTIMES) or ': known are python2.7 to python3.15'}")
    return name


def _interpreter(value: Any, info: ValidationInfo) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        refuse(f'must be the path of a Python, or "{OWN}" for the one that bridge runs on')
    return _resolved(surroundings(info).folder, value)


def _resolved(folder: Path, written: str) -> str:
    return OWN if written == OWN else str(beside(folder, written))


RuntimeName: TypeAlias = Annotated[str, AfterValidator(_checked_name)]
InterpreterValue: TypeAlias = Annotated[str, PlainValidator(_interpreter), WithJsonSchema({"type": "string"})]


def mistakes(data: Mapping[str, Any], folder: Path) -> Iterator[tuple[Loc, str]]:
    """Yield what keeps an interpreter from running functions; each is run once to see what it is."""
    for name, written in table(data, "runtimes").items():
        if not isinstance(written, str) or not written or "\0" in written or name not in PYTHON_RUNTIMES:
            continue  # told by the section
        try:
            interpreter(_resolved(folder, written))
        except ConfigError as error:
            text = str(error)
            yield ("runtimes", name), text if text.isprintable() else ascii(text)


def interpreters(settings: "Settings") -> dict[str, Interpreter]:
    """Return the interpreters by the runtimes they run (blocking). Raises ConfigError."""
    return {name: interpreter(written) for name, written in settings.runtimes.items()}
