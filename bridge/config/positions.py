"""Finds the line of every key in a TOML text that `tomllib` has already accepted: it knows values, but no places."""

import contextlib
import re
import tomllib
from typing import Final

from bridge.config.mistakes import Loc

_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY_PART: Final = re.compile(r"""[ \t]*(?:([A-Za-z0-9_-]+)|("(?:[^"\\]|\\.)*"|'[^']*'))[ \t]*""")
_STRING: Final = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}' r"|'''(?:[^']|'(?!''))*'{3,5}" r'|"(?:[^"\\]|\\.)*"' r"|'[^']*'",
    re.DOTALL,
)
_SCALAR: Final = re.compile(r"[^,\]}#\r\n]+")


def key_lines(text: str) -> dict[Loc, int]:
    """Return the line (from 1) on which each key, table and array item of valid TOML begins.

    A text nested deeper than the interpreter's stack yields the places found before that point.
    """
    scanner = _Scanner(text)
    with contextlib.suppress(RecursionError):  # a mistake without a line is still a mistake that is reported
        scanner.scan()
    return scanner.lines


class _Scanner:
    """One pass over the text; `lines` grows as it goes."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1
        self._counted = 0
        self._array_tables: dict[Loc, int] = {}
        self.lines: dict[Loc, int] = {(): 1}

    def scan(self) -> None:
        table: Loc = ()
        self._skip_blank()
        while self._at < len(self._text):
            if self._text.startswith("[[", self._at):
                table = self._array_table()
            elif self._text[self._at] == "[":
                self._at += 1
                table = self._resolve(self._key())
                self._note(table)
                self._at += 1
            else:
                self._assignment(table)
            self._skip_blank()

    def _array_table(self) -> Loc:
        self._at += 2
        *parents, name = self._key()
        path = (*self._resolve(parents), name)
        index = self._array_tables.get(path, 0)
        self._array_tables[path] = index + 1
        self._note(path)
        self._note((*path, index))
        self._at += 2
        return (*path, index)

    def _resolve(self, key: list[str]) -> Loc:
        """Return the path a header names: within an array of tables it means the last table."""
        path: Loc = ()
        for part in key:
            path = (*path, part)
            if path in self._array_tables:
                path = (*path, self._array_tables[path] - 1)
        return path

    def _assignment(self, table: Loc) -> None:
        path = (*table, *self._key())
        self._note(path, above=len(table))
        self._at += 1  # the equals sign
        self._skip_blank()
        self._value(path)

    def _key(self) -> list[str]:
        parts: list[str] = []
        while found := _KEY_PART.match(self._text, self._at):
            bare, quoted = found.groups()
            parts.append(bare if quoted is None else next(iter(tomllib.loads(f"{quoted} = 0"))))
            self._at = found.end()
            if self._text[self._at : self._at + 1] != ".":
                break
            self._at += 1
        return parts

    def _value(self, path: Loc) -> None:
        if found := _STRING.match(self._text, self._at):
            self._at = found.end()
        elif self._text[self._at] == "[":
            self._array(path)
        elif self._text[self._at] == "{":
            self._inline_table(path)
        elif found := _SCALAR.match(self._text, self._at):
            self._at = found.end()

    def _array(self, path: Loc) -> None:
        self._at += 1
        index = 0
        while True:
            self._skip_blank()
            if self._text[self._at] == "]":
                break
            self._note((*path, index))
            self._value((*path, index))
            index += 1
            self._skip_blank()
            self._at += self._text[self._at] == ","
        self._at += 1

    def _inline_table(self, path: Loc) -> None:
        self._at += 1
        while True:
            self._skip_blank()
            if self._text[self._at] == "}":
                break
            self._assignment(path)
            self._skip_blank()
            self._at += self._text[self._at] == ","
        self._at += 1

    def _skip_blank(self) -> None:
        found = _BLANK.match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _note(self, path: Loc, *, above: int = 0) -> None:
        """Remember the line for `path` and for its parents below level `above` that have none yet."""
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        for length in range(above + 1, len(path) + 1):
            self.lines.setdefault(path[:length], self._line)
