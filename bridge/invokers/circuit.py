"""Decides when a remote function may be asked: pure, the caller brings the time (monotonic seconds)."""

import math
import random
from dataclasses import dataclass
from typing import Final

from bridge.core import limits
from bridge.core.retry import backoff_s

_UNLIMITED: Final = math.inf


@dataclass(slots=True, eq=False)
class Ask:
    """One invocation under way."""

    epoch: int
    is_probe: bool


class Circuit:
    """Closed: invocations pass. Open: none does for a while, then one alone tries (half-open).

    An open circuit keeps hundreds of events from each waiting for a connection that is not to be had. What was sent
    before it opened may still end as it likes: a late failure does not open it again, an answer closes it.

    A throttle does not open it. Of a burst over the remote's limit, those that were not throttled still run there:
    so many at once are the limit from then on, one more for each round of answers, forgotten after a minute without
    throttles. Where none of ours runs there, or the remote asks for it, nothing is asked for a while.

    Args:
        rng: source of the jitter.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.running = 0
        self.opened_at: float | None = None
        """When it opened; None: it is closed."""
        self._reason = ""
        self._epoch = 0
        self._failures = 0
        self._trips = 0
        self._probe: Ask | None = None
        self._limit = _UNLIMITED
        self._throttles = 0
        self._throttled_at = -math.inf
        self.held_until = -math.inf
        """Nothing is asked before."""

    def room(self, now: float) -> int:
        """Return how many may be asked now."""
        if now < self.held_until:
            return 0
        if self.opened_at is not None:
            return 0 if self._probe is not None else 1
        if now - self._throttled_at > limits.REMOTE_THROTTLE_KEPT_S:
            self._limit = _UNLIMITED
        return max(0, int(min(self._limit, limits.REMOTE_CONNECTIONS_MAX)) - self.running)

    def begin(self) -> Ask:
        """Count one that `room` allowed."""
        ask = Ask(self._epoch, is_probe=self.opened_at is not None and self._probe is None)
        if ask.is_probe:
            self._probe = ask
        self.running += 1
        return ask

    def end(self, ask: Ask) -> None:
        """Count one less, once; after the call that says how it ended."""
        self.running -= 1
        if self._probe is ask:
            self._probe = None

    def answered(self) -> None:
        """The remote is at work, whatever it said of the event."""
        if self.opened_at is not None:
            self.held_until = -math.inf
        self.opened_at = None
        self._failures = self._trips = self._throttles = 0
        if self._limit != _UNLIMITED:
            self._limit += 1 / self._limit

    def throttled(self, now: float, *, retry_after_s: float | None, reason: str) -> None:
        """It refused one for there being too many."""
        others = self.running - 1
        self._limit = max(1.0, min(self._limit, float(others)))
        self._throttled_at = now
        self._failures = self._trips = 0
        self.opened_at = None
        wait_s = retry_after_s
        if wait_s is None and not others:
            wait_s = backoff_s(self._throttles, self._rng)
            self._throttles += 1
        if wait_s:
            self._reason = f"throttled ({reason})" if reason else "throttled"
            self.held_until = max(self.held_until, now + wait_s)

    def failed(self, ask: Ask, now: float, reason: str, *, is_certain: bool) -> None:
        """A system error, or nobody there.

        Args:
            ask: which one.
            now: when.
            reason: in one line.
            is_certain: the next one would fare no better: one such failure opens the circuit.
        """
        if ask.epoch != self._epoch:
            return  # sent before it opened
        self._failures += 1
        if not (is_certain or ask.is_probe or self._failures >= limits.REMOTE_FAILURES_MAX):
            return
        self.held_until = now + backoff_s(self._trips, self._rng)
        self.opened_at = now if self.opened_at is None else self.opened_at
        self._reason = reason
        self._trips += 1
        self._failures = 0
        self._epoch += 1

    def hindrance(self, now: float) -> str:
        """Return why nothing may be asked now; empty where only what runs is in the way."""
        if now < self.held_until:
            return f"{self._reason}; asked again in {max(1, math.ceil(self.held_until - now))} s"
        if self.opened_at is not None and self._probe is not None:
            return f"{self._reason}; one invocation tries it now"
        return ""

    @property
    def is_throttled(self) -> bool:
        """Whether it is the remote's limit that is waited for, not the remote."""
        return self.opened_at is None
