"""The trace header of single calls: what came of what, sent on as AWS's own services and clients do.

A header has no place in the arguments of a call: botocore asks whoever listens to `before-call` for changes to the
request. It does not sign this one.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Final
from urllib.parse import quote
from weakref import WeakSet

_NAME: Final = "X-Amzn-Trace-Id"
_SAFE: Final = "-=;:+&[]{}\"',"
"""As botocore's own handler writes the header (add_recursion_detection_header)."""
_header: Final = ContextVar("_header", default="")
_told: Final[WeakSet[Any]] = WeakSet()


@contextlib.contextmanager
def sending(client: Any, header: str) -> Iterator[None]:
    """Have the calls of this task on a client carry a trace header within the block; an empty one: none."""
    if not header:
        yield
        return
    if client not in _told:
        _told.add(client)
        client.meta.events.register("before-call", _add, unique_id="bridge-trace")
    token = _header.set(header)
    try:
        yield
    finally:
        _header.reset(token)


def _add(params: dict[str, Any], **_: Any) -> None:
    if header := _header.get():
        params["headers"].setdefault(_NAME, quote(header, safe=_SAFE))
