"""Puts environment variables into strings: `${X}` and `${X:-default}`; `$${` stays a plain `${`."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from bridge.config.mistakes import Loc

DEPTH_MAX: Final = 32
"""Tables and arrays within each other; no setting needs more than six."""
_VARIABLE: Final = re.compile(
    r"(?P<escaped>\$\$\{)|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\})?"
)


class Expanded(str):
    """A string that held a variable: `written` is how the file says it, the value itself may be secret."""

    __slots__ = ("written",)
    written: str


def expand(data: Mapping[str, Any], environ: Mapping[str, str], report: Callable[[Loc, str], None]) -> dict[str, Any]:
    """Return a copy of `data` with every variable in every string replaced.

    A variable that is unset, or a `${` that names none, is told to `report`; the string then stays as written.
    """
    return {key: _expand(value, (key,), environ, report) for key, value in data.items()}


def _expand(value: Any, loc: Loc, environ: Mapping[str, str], report: Callable[[Loc, str], None]) -> Any:
    if isinstance(value, str):
        return _expand_text(value, loc, environ, report) if "${" in value else value
    if len(loc) > DEPTH_MAX:
        report(loc[:DEPTH_MAX], "nested too deeply")
        return None
    if isinstance(value, dict):
        return {key: _expand(item, (*loc, key), environ, report) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, (*loc, index), environ, report) for index, item in enumerate(value)]
    return value


def _expand_text(written: str, loc: Loc, environ: Mapping[str, str], report: Callable[[Loc, str], None]) -> str:
    failed = False

    def replace(found: re.Match[str]) -> str:
        nonlocal failed
        if found["escaped"]:
            return "${"
        name, default = found["name"], found["default"]
        if name is None:
            report(loc, "${ needs a name and a brace: ${X} or ${X:-default}; write $${ for a plain ${")
            failed = True
            return ""
        value = environ.get(name)
        if default is not None:
            return value or default  # as in a shell: `:-` counts empty as unset
        if value is None:
            report(loc, f"${{{name}}} is not set in the environment; set it or write ${{{name}:-default}}")
            failed = True
            return ""
        return value

    text = _VARIABLE.sub(replace, written)
    expanded = Expanded(written if failed else text)
    expanded.written = written
    return expanded
