"""Filter patterns given to the api: compiled, with the mistake said about their field."""

from collections.abc import Callable

from bridge.api.http import HttpError
from bridge.core.invocation import DeadLetter
from bridge.core.record import Record
from bridge.pipeline.filters import PatternInvalid, compile_pattern, matches_event


def compile_where(text: str, *, wrong: Callable[[str], HttpError]) -> Callable[[Record | DeadLetter], bool]:
    """Return a test of stored events.

    Raises:
        HttpError: what `wrong` makes of the pattern's mistake.
    """
    try:
        pattern = compile_pattern(text)
    except PatternInvalid as error:
        raise wrong(str(error)) from error
    return lambda stored: matches_event(pattern, stored.payload)
