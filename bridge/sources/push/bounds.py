"""How much strangers can make us ask others for: so much at once, so much a minute."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

AT_ONCE_MAX: Final = 4
PER_MINUTE_MAX: Final = 20
_MINUTE_S: Final = 60.0


class TooMuch(Exception):
    """The bound is reached."""


class Bounds:
    """Counts what one route asks of others.

    Args:
        now: the stepped wall clock, epoch seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._running = 0
        self._started_at: deque[float] = deque(maxlen=PER_MINUTE_MAX)

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Count what happens inside. Raises TooMuch."""
        now = self._now()
        is_full = len(self._started_at) == PER_MINUTE_MAX and 0 <= now - self._started_at[0] < _MINUTE_S
        if is_full or self._running >= AT_ONCE_MAX:
            raise TooMuch
        self._started_at.append(now)
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
