"""From a file and the environment to typed settings, or to every mistake at once, each on a line with its place."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from bridge.config import checks
from bridge.config.document import STATE_DEFAULT, Document, local_state, read_document
from bridge.config.expand import expand
from bridge.config.files import beside
from bridge.config.local import localised, without_clusters
from bridge.config.mistakes import ConfigErrors, Loc, key_text
from bridge.config.settings import Settings
from bridge.config.spaces import placed
from bridge.config.values import Surroundings

OVERRIDES: Final[Mapping[str, tuple[str, ...]]] = {
    "BRIDGE_STATE": ("state",),
    "BRIDGE_PUBLIC": ("listen", "public"),
    "BRIDGE_API": ("listen", "api"),
    "BRIDGE_TLS": ("listen", "tls"),
}
"""Variables that override the file, as an image needs; empty ones count as unset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A file that holds no mistake."""

    settings: Settings
    path: Path
    """Absolute path of the file."""
    warnings: tuple[str, ...]
    """One line each: what works and should not stay so."""


@dataclass(slots=True)
class _Findings:
    """Mistakes with their places, so that they come in the order of the file."""

    document: Document
    overridden: dict[Loc, str] = field(default_factory=dict)
    """Places whose value came from a variable, and its name."""
    found: list[tuple[Loc, str]] = field(default_factory=list)
    unexpanded: set[Loc] = field(default_factory=set)
    """Strings with a variable that is not set: what else is wrong with them is not known yet."""

    def add(self, loc: Loc, text: str) -> None:
        if not any(loc[: len(known)] == known for known in self.unexpanded) and (loc, text) not in self.found:
            self.found.append((loc, text))

    def add_unexpanded(self, loc: Loc, text: str) -> None:
        self.found.append((loc, text))
        self.unexpanded.add(loc)

    def lines(self) -> list[str]:
        return [self._line(loc, text) for loc, text in sorted(self.found, key=lambda found: self._order(found[0]))]

    def _order(self, loc: Loc) -> int:
        if loc in self.overridden:  # in front, in the order of the variables
            return list(OVERRIDES).index(self.overridden[loc]) - len(OVERRIDES)
        return self.document.line(loc)

    def _line(self, loc: Loc, text: str) -> str:
        if loc in self.overridden:
            return f"{self.overridden[loc]}: {key_text(loc)}: {text}"
        return self.document.report(loc, text)


def load(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    local: bool = False,
    remote: bool = False,
) -> Loaded:
    """Read a configuration; `./bridge.toml` when no path is given.

    Args:
        path: the file; relative paths in it start at its folder.
        environ: where `${X}`, `{ env = "X" }` and BRIDGE_* are looked up; default: the process's.
        local: read every pull source from an embedded stream; connections are neither looked at nor needed, and the
            state folder is `local_state` of the usual one, unless BRIDGE_STATE names one.
        remote: with `local`: functions elsewhere are invoked, so connections to AWS are looked at.

    Raises:
        ConfigErrors: with all mistakes. None of them shows a secret, and none drags a traceback along.
    """
    environ = os.environ if environ is None else environ
    document = read_document(path)
    findings = _Findings(document)
    written = without_clusters(document.data, remote=remote) if local else document.data
    data = expand(written, environ, findings.add_unexpanded)
    if local:
        data = localised(data)
        state = data.get("state", str(Path.cwd() / STATE_DEFAULT))
        if isinstance(state, str) and state:
            data["state"] = str(local_state(beside(document.folder, state)))
    _override(data, environ, findings)
    data = placed(data)
    settings = _validate(data, Surroundings(folder=document.folder, environ=environ), findings)
    for loc, text in checks.mistakes(data, document.folder):
        findings.add(loc, text)
    if findings.found or settings is None:
        raise ConfigErrors(findings.lines())
    warned = _Findings(document, overridden=findings.overridden, found=list(checks.warnings(data, document.folder)))
    return Loaded(settings=settings, path=document.folder / Path(document.name).name, warnings=tuple(warned.lines()))


def _override(data: dict[str, Any], environ: Mapping[str, str], findings: _Findings) -> None:
    """Put the values of BRIDGE_* in place of the file's."""
    for name, loc in OVERRIDES.items():
        value: str = environ.get(name, "")
        table = data.setdefault(loc[0], {}) if len(loc) > 1 and value else data
        if value and isinstance(table, dict):
            # A path in the environment starts where the command was typed, not at the file.
            table[loc[-1]] = str(beside(Path.cwd(), value)) if loc == ("state",) else value
            findings.overridden[loc] = name
            findings.found = [found for found in findings.found if found[0][: len(loc)] != loc]
            findings.unexpanded = {known for known in findings.unexpanded if known[: len(loc)] != loc}


def _validate(data: Mapping[str, Any], context: Surroundings, findings: _Findings) -> Settings | None:
    try:
        return Settings.model_validate(data, context=context)
    except ValidationError as error:
        details = error.errors(include_url=False)
    from bridge.config.explain import explain  # only a mistake pays for it

    for detail in details:
        if detail["type"] == "too_short" and len(detail["input"]) >= detail["ctx"]["min_length"]:
            continue  # its bad items were not counted; they are told themselves
        findings.add(*explain(detail, data))
    return None
