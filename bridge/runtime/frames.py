"""The wire between daemon and worker: length-prefixed frames, the same numbers as in `bootstrap.py`."""

import re
import struct
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import orjson

from bridge.core import limits

if TYPE_CHECKING:
    from bridge.runtime.job import Job

INIT: Final = 0
INVOKE: Final = 1
READY: Final = 2
INIT_ERROR: Final = 3
OK: Final = 4
ERROR: Final = 5
SKIPPED: Final = 6
LEAVING: Final = 7
"""The worker ends, after what it sends next if anything runs on it: nothing more is to be sent to it."""
SHUTDOWN: Final = 8
"""To a worker with extensions: it is to end, and to tell them."""
AHEAD: Final = 1
"""Flag of an INVOKE frame: needs a token from the worker's counter before it may start."""
MARK: Final = 2
"""Flag of an INVOKE frame that is sent before the worker is free: its output begins with a mark."""

_INVOKE: Final = struct.Struct("=IBBIIHHHI")
RESULT: Final = struct.Struct("=IBIdI")
"""length, kind, sequence, duration in ms, peak resident memory in KiB."""
RESULT_REST: Final = RESULT.size - 4
FRAME_MAX_BYTES: Final = limits.SYNC_RESPONSE_MAX_BYTES + 64 * limits.KIB
"""Above this a worker talks nonsense: its own side already turns a larger answer into an error."""
DURATION_MAX_MS: Final = 86_400_000.0
"""A day; of a longer one, a negative one, or one that is no number, nothing can be reported."""
APART_MIN_BYTES: Final = 16 * limits.KIB
BEGIN_MARK: Final = b"\0bridge:begin:%d\0"
MARK_START: Final = b"\0"
_MARK: Final = re.compile(rb"\0bridge:begin:(\d{1,10})\0")


def encode_init(settings: Mapping[str, Any]) -> bytes:
    """Return the first frame of a worker: handler, environment, paths."""
    body = orjson.dumps(settings)
    return struct.pack("=IB", len(body) + 1, INIT) + body


def encode_shutdown(reason: str) -> bytes:
    """Return the frame that lets a worker with extensions end: `spindown`, `timeout` or `failure`."""
    return struct.pack("=IB", len(reason) + 1, SHUTDOWN) + reason.encode()


def encode_invoke(job: "Job", timeout_ms: int, flags: int) -> list[bytes]:
    """Return the frame of one event: a large payload, that of a batch, stands apart, so that it is not copied."""
    invocation = job.invocation
    request_id = invocation.request_id.encode()
    arn = invocation.invoked_arn.encode()
    trace = job.trace.encode()
    context = invocation.client_context
    payload = invocation.payload
    a, b, c, d = len(request_id), len(arn), len(trace), len(context)
    length = _INVOKE.size - 4 + a + b + c + d + len(payload)
    head = _INVOKE.pack(length, INVOKE, flags, job.sequence, timeout_ms, a, b, c, d)
    if len(payload) < APART_MIN_BYTES:
        return [b"".join((head, request_id, arn, trace, context, payload))]
    return [b"".join((head, request_id, arn, trace, context)), payload]


def split_output(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield output as marks cut it: the sequence in the mark, 0 before the first, and what follows it."""
    pieces = _MARK.split(data)
    yield 0, pieces[0]
    for index in range(1, len(pieces), 2):
        yield int(pieces[index]), pieces[index + 1]
