"""Tumbling windows: which records belong together, the state between calls, when one closes (semantics 3.11)."""

import base64
from typing import Any

import orjson

from bridge.core import limits
from bridge.core.sources import WindowPart

EMPTY = b"{}"


class Window:
    """The one open window of a shard, aligned to multiples of its length."""

    __slots__ = ("is_open", "length_s", "needs_early_end", "start", "state")

    def __init__(self, length_s: int) -> None:
        self.length_s = length_s
        self.is_open = False
        self.start = 0.0
        self.state = EMPTY
        self.needs_early_end = False
        """The state has become too large: the next call ends the window early."""

    @property
    def end(self) -> float:
        """Epoch seconds at which it closes."""
        return self.start + self.length_s

    def open_for(self, time_s: float) -> None:
        """Open the window that a record of that time belongs to, unless one is open."""
        if not self.is_open:
            self.is_open = True
            self.start = float(time_s // self.length_s * self.length_s)
            self.state = EMPTY

    def is_later(self, time_s: float) -> bool:
        """Whether a record belongs to a later window than the open one; late records belong to the open one."""
        return time_s >= self.end

    def has_passed(self, now: float) -> bool:
        """Whether the clock has passed its end."""
        return self.is_open and now >= self.end

    def part(self, *, is_final: bool, is_early: bool) -> WindowPart:
        """Return what the event of the next call carries."""
        return WindowPart(
            start=self.start, end=self.end, state=self.state, is_final=is_final, is_terminated_early=is_early
        )

    def answered(self, state: bytes | None, *, is_final: bool, is_early: bool) -> None:
        """Take the state that a call returned; a final call closes the window, an early one empties it."""
        if is_early:
            self.state = EMPTY
            self.needs_early_end = False
        elif is_final:
            self.close()
        elif state is not None:
            self.state = state
            self.needs_early_end = len(state) > limits.WINDOW_STATE_MAX_BYTES

    def close(self) -> None:
        """Forget it: the next record opens another."""
        self.is_open = False
        self.state = EMPTY
        self.needs_early_end = False

    def pack(self) -> bytes:
        """Return what is stored with the mark; empty while no window is open."""
        if not self.is_open:
            return b""
        early = {"e": True} if self.needs_early_end else {}
        return orjson.dumps({"w": self.start, "s": base64.b64encode(self.state).decode("ascii"), **early})

    @classmethod
    def restore(cls, length_s: int, packed: bytes) -> "Window":
        """Return a window as `pack` left it; one of another length is not gone on with."""
        window = cls(length_s)
        data: dict[str, Any] = orjson.loads(packed) if packed else {}
        if data and data["w"] % length_s == 0:
            window.is_open = True
            window.start = float(data["w"])
            window.state = base64.b64decode(data["s"])
            window.needs_early_end = bool(data.get("e"))
        return window
