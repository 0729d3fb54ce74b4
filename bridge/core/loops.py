"""The seam of what stops functions that call themselves through each other, queues and destinations."""

from collections.abc import Iterable
from typing import Protocol


class Loops(Protocol):
    """The chains of functions that led to what runs, by request id. No I/O.

    A chain is in the trace header (X-Amzn-Trace-Id, AWSTraceHeader) of what a function sends on.
    """

    def why_stopped(self, name: str, header: str) -> str:
        """Say why a function may not run for what came with a header, in one line; empty: it may."""
        ...

    def admit(self, request_id: str, name: str, header: str) -> None:
        """Take note of the chain that led to an event. Raises RecursiveInvocation where `why_stopped` says why."""
        ...

    def follow(self, request_id: str, headers: Iterable[str]) -> None:
        """Take note of the chains that led to a batch: of each function the longest counts."""
        ...

    def leave(self, request_id: str) -> None:
        """Forget the chain of an invocation that sends nothing on any more."""
        ...

    def allows(self, name: str) -> bool:
        """Tell whether a function may be in a loop (PutFunctionRecursionConfig)."""
        ...

    def trace(self, request_id: str, name: str, *, now: float) -> str:
        """Return the trace header of what a function sends on: its chain, itself included; `now`: epoch seconds."""
        ...
