"""Text from outside, made safe to show: in a log line or on a person's terminal."""

import re
from typing import Final

JOINED_LINES: Final = re.compile(r"\[ERROR\] |\d{4}-\d\d-\d\dT[\d:.]{8,12}Z\t[^\t]{1,64}\t[A-Z]{4,5}\t")
"""Begins a record of AWS's runtimes whose lines are joined by carriage returns: Python's of an error, Node's of any."""
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def escape(text: str) -> str:
    r"""Return `text` with control, direction and surrogate characters written as `\n`, `\x1b`, `\u202e`.

    Nothing that came from outside can then start a line of its own or talk to the reader's terminal.
    """
    return _CONTROL.sub(lambda found: found.group().encode("unicode_escape", "surrogatepass").decode("ascii"), text)
