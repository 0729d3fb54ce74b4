"""How a webhook says no: a status and one JSON line, after which nothing was stored."""

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final

from bridge.core.errors import InvokeError, Throttled
from bridge.events.http import TooManyParameters

RETRY_AFTER_S: Final = 1
"""What a sender is told when the disk, a lane or the daemon's end is in the way."""


class Refusal(Exception):
    """Ends a request with a status and one JSON line; nothing was stored.

    Args:
        status: 400..599.
        text: one line: what is wrong, and what to do where that is not plain.
        reason: a few words, the label in metrics: of a small, fixed set.
        headers: besides the content type.
        more: further members of the JSON line.
    """

    def __init__(
        self,
        status: int,
        text: str,
        *,
        reason: str,
        headers: Sequence[tuple[bytes, bytes]] = (),
        more: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason
        self.headers = headers
        self.more = more or {}


def retry_after(after_s: float) -> tuple[bytes, bytes]:
    """Return the header `Retry-After`: whole seconds, 1 at least."""
    return (b"retry-after", b"%d" % max(1, math.ceil(after_s)))


def malformed(text: str) -> Refusal:
    """Return the refusal of a request whose body is not what the route's format says: 400."""
    return Refusal(400, text, reason="malformed")


def bad_query(error: TooManyParameters) -> Refusal:
    """Return the refusal of a query with too many parameters: 400."""
    return Refusal(400, str(error), reason="query")


def too_large(text: str) -> Refusal:
    """Return the refusal of what is above a limit: 413."""
    return Refusal(413, text, reason="too large")


def unavailable(text: str, *, reason: str) -> Refusal:
    """Return the refusal of what can be sent again in a moment: 503."""
    return Refusal(503, text, reason=reason, headers=(retry_after(RETRY_AFTER_S),))


def not_accepted(error: InvokeError) -> Refusal:
    """Return the refusal for an invocation that was not accepted: nothing ran."""
    if isinstance(error, Throttled):
        more = {"Reason": error.reason, "Type": "User", "message": str(error)}
        return Refusal(429, str(error), reason="throttled", headers=(retry_after(error.retry_after_s),), more=more)
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return unavailable(str(error), reason="runtime")
    return Refusal(error.status, str(error), reason=error.code)
