"""Decides what happens to an asynchronous event after an attempt: pure, no clock, no I/O (semantics 2.1)."""

import random
from dataclasses import dataclass

from bridge.core import limits
from bridge.core.function import EventInvokeConfig
from bridge.core.invocation import Condition


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Try again after `delay_s` seconds."""

    delay_s: float
    counted: bool
    """True when it uses one of `maximum_retry_attempts` (function errors only)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """The event leaves its queue for the failure destination, now."""

    condition: Condition


def after_function_error(config: EventInvokeConfig, *, attempts: int, age_s: float) -> Retry | GiveUp:
    """Return what follows a function error.

    Args:
        config: the event-invoke config in force.
        attempts: attempts that ran and counted, this one included (>= 1).
        age_s: seconds since the event was accepted.

    The age test looks ahead: if now + delay would pass the maximum age the event is given up now,
    as EventAgeExceeded (recorded against AWS: age 60 s gives one attempt, 90 s two).
    """
    if attempts > config.maximum_retry_attempts:
        return GiveUp(condition=Condition.RETRIES_EXHAUSTED)
    delays = config.retry_delays_s or (0.0,)
    delay_s = delays[min(attempts, len(delays)) - 1]
    if age_s + delay_s >= config.maximum_event_age_s:
        return GiveUp(condition=Condition.EVENT_AGE_EXCEEDED)
    return Retry(delay_s=delay_s, counted=True)


def after_system_error(config: EventInvokeConfig, *, backoffs: int, age_s: float, rng: random.Random) -> Retry | GiveUp:
    """Return what follows a throttle (429), a 5xx or an unknown outcome: back-off that uses no retry.

    Args:
        config: the event-invoke config in force.
        backoffs: throttles and system errors in a row before this one (>= 0).
        age_s: seconds since the event was accepted.
        rng: source of the full jitter (between half and the whole of the exponential delay).
    """
    delay_s = backoff_s(backoffs, rng)
    if age_s + delay_s >= config.maximum_event_age_s:
        return GiveUp(condition=Condition.EVENT_AGE_EXCEEDED)
    return Retry(delay_s=delay_s, counted=False)


def backoff_s(backoffs: int, rng: random.Random) -> float:
    """Return the seconds to wait after a throttle or system error: 1 s, doubling, up to 5 min, with jitter."""
    ceiling = min(limits.THROTTLE_BACKOFF_MAX_S, limits.THROTTLE_BACKOFF_MIN_S * 2 ** min(backoffs, 16))
    return max(limits.THROTTLE_BACKOFF_MIN_S, rng.uniform(ceiling / 2, ceiling))
