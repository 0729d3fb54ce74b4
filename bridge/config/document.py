"""Reads one TOML file: refuses what is none in one line, and knows the place of every key."""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from bridge.config.expand import expand
from bridge.config.files import Unreadable, beside, read_small
from bridge.config.mistakes import ConfigErrors, Loc, key_text

FILE_DEFAULT: Final = "bridge.toml"
STATE_DEFAULT: Final = ".bridge"
_LOCAL_SUFFIX: Final = "-local"
FILE_MAX_BYTES: Final = 1 << 20
"""A configuration of ten thousand routes is about this large."""
_PLACE: Final = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)\Z")


@dataclass(frozen=True)
class Document:
    """A parsed file: `data` as tomllib gives it, `name` as the user wrote it."""

    name: str
    folder: Path
    """Absolute folder of the file: relative paths in it start here."""
    text: str
    data: dict[str, Any]

    @cached_property
    def _lines(self) -> dict[Loc, int]:
        from bridge.config.positions import key_lines  # only a mistake pays for it

        return key_lines(self.text)

    def line(self, loc: Loc) -> int:
        """Return the line of a key, or of its nearest parent that the file has."""
        lines = self._lines
        while loc and loc not in lines:
            loc = loc[:-1]
        return lines.get(loc, 1)

    def report(self, loc: Loc, text: str) -> str:
        """Return one line: `bridge.toml:14: sources.x.path: text`."""
        key = key_text(loc)
        return f"{self.name}:{self.line(loc)}: {key}: {text}" if key else f"{self.name}: {text}"


def read_document(path: Path | None) -> Document:
    """Read and parse `path`, or `./bridge.toml` when none is named.

    Raises:
        ConfigErrors: no such file, not a regular file, too large, not UTF-8, not TOML.
    """
    if path is None:
        path = Path(FILE_DEFAULT)
        if not os.path.lexists(path):
            raise ConfigErrors([f"{FILE_DEFAULT}: not in this folder; name the configuration: bridge --config FILE …"])
    name = os.fspath(path)
    text = _read_text(path, name)
    if not text.strip():
        raise ConfigErrors([f"{name}: the file is empty"])
    return Document(name=name, folder=beside(Path.cwd(), path).parent, text=text, data=_parse(text, name))


def state_folder(path: Path | None, environ: Mapping[str, str]) -> Path:
    """Return the absolute state folder without reading more than one key, for commands that talk to a daemon.

    BRIDGE_STATE, else `state` in the file, else `.bridge` in the working directory.

    Raises:
        ConfigErrors: a file was named and cannot be read.
    """
    if written := environ.get("BRIDGE_STATE"):
        return beside(Path.cwd(), written)
    if path is not None or os.path.lexists(FILE_DEFAULT):
        document = read_document(path)
        state = document.data.get("state")
        if isinstance(state, str) and state:
            expanded = expand({"state": state}, environ, lambda _loc, _text: None)["state"]
            return beside(document.folder, expanded)
    return beside(Path.cwd(), STATE_DEFAULT)


def local_state(state: Path) -> Path:
    """Return the state folder of `bridge run --local`: beside the usual one, which a trial must not write to."""
    return state.parent / f"{state.name}{_LOCAL_SUFFIX}"


def _read_text(path: Path, name: str) -> str:
    try:
        raw = read_small(path, max_bytes=FILE_MAX_BYTES)
    except Unreadable as error:
        raise ConfigErrors([f"{name}: {error}"]) from None
    try:
        # Editors on Windows write a byte order mark and CRLF; neither changes what the file says.
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigErrors([f"{name}:{line}: not UTF-8"]) from None


def _parse(text: str, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigErrors([_syntax_mistake(str(error), text, name)]) from None
    except RecursionError:
        raise ConfigErrors([f"{name}: nested too deeply"]) from None
    except ValueError as error:  # numbers of more than 4,300 digits, dates that no calendar has
        raise ConfigErrors([f"{name}: not TOML: {error}"]) from None


def _syntax_mistake(error: str, text: str, name: str) -> str:
    """Return tomllib's error with the line in front; a key given twice is said so."""
    place = _PLACE.search(error)
    what = error[: place.start()] if place else error
    line = int(place[1]) if place and place[1] else text.count("\n") + (not text.endswith("\n"))
    if what.startswith(("Cannot overwrite", "Cannot declare", "Duplicate inline table key", "Cannot redefine")):
        what = f"a key or table is given twice ({what[0].lower()}{what[1:]})"
    else:
        what = f"not TOML: {what[0].lower()}{what[1:]}"
    return f"{name}:{line}: " + what.replace("\n", " ")
