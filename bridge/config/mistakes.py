"""Mistakes in a configuration: each is one line with file, line number, key and what to write instead."""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from bridge.core.errors import ConfigError

Loc: TypeAlias = tuple[str | int, ...]
"""Where in the tree: keys, and indexes of arrays."""

MISTAKES_MAX: Final = 200
"""Lines shown at once; a file with more than this is another kind of file."""
KEY_SHOWN_CHARS: Final = 80
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,80}\Z")


class ConfigErrors(ConfigError):
    """All mistakes of one configuration, one line each, in the order of the file."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        shown = list(mistakes[:MISTAKES_MAX])
        if len(mistakes) > MISTAKES_MAX:
            shown.append(f"... and {len(mistakes) - MISTAKES_MAX} more")
        self.mistakes: tuple[str, ...] = tuple(shown)
        super().__init__("\n".join(shown))


def key_text(loc: Loc) -> str:
    """Return `loc` as one writes it: `sources.orders.verify.secrets[0]`, on one line whatever the keys hold."""
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + plain(part)
    return text


def plain(key: str) -> str:
    """Return a key as TOML spells it: bare where it may be, else quoted, escaped and shortened."""
    if _BARE_KEY.match(key):
        return key
    shortened = key if len(key) <= KEY_SHOWN_CHARS else key[:KEY_SHOWN_CHARS] + "..."
    return json.dumps(shortened)


def near(word: object, candidates: Iterable[str]) -> str:
    """Return `; did you mean X?` for the candidate nearest to `word`, or nothing."""
    if not isinstance(word, str):
        return ""
    from difflib import get_close_matches  # only a mistake pays for it

    known = {candidate.lower(): candidate for candidate in candidates}
    found = get_close_matches(word[:KEY_SHOWN_CHARS].lower(), known, n=1, cutoff=0.75)
    return f"; did you mean {known[found[0]]}?" if found else ""


def listing(words: Iterable[str], *, last: str = "or") -> str:
    """Return `a, b or c`."""
    *head, tail = words
    return f"{', '.join(head)} {last} {tail}" if head else tail
