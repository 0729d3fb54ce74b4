"""Remembers delivery ids for a while, so that a sender's second try is answered and not handled again."""

import hashlib
import struct
import uuid
from functools import lru_cache
from typing import Final

from bridge.core import limits

KEYS_CACHED_MAX: Final = 1024
_ENTRY = struct.Struct("<16sd")


class DeliveryIndex:
    """A bounded map (source, delivery id) -> first request id, oldest forgotten first.

    About 150 bytes an id. Rebuilt from the journal at start. Times are wall-clock epoch seconds.
    """

    def __init__(self, *, ids_max: int = limits.DEDUPLICATION_IDS_MAX) -> None:
        self._ids_max = ids_max
        self._entries: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @staticmethod
    @lru_cache(maxsize=KEYS_CACHED_MAX)
    def key(source: str, delivery_id: str) -> bytes:
        """Return the 16-byte key of a delivery; asked for twice an event, when it comes and when it is stored."""
        return hashlib.blake2b(f"{source}\0{delivery_id}".encode(), digest_size=16).digest()

    def find(self, key: bytes, *, now: float, window_s: float) -> str | None:
        """Return the first request id if that delivery was stored less than `window_s` ago."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        raw_id, received_at = _ENTRY.unpack(entry)
        return str(uuid.UUID(bytes=raw_id)) if now - received_at < window_s else None

    def add(self, key: bytes, request_id: str, *, received_at: float) -> None:
        """Remember a stored delivery; forgets the oldest above the bound."""
        self._entries.pop(key, None)
        self._entries[key] = _ENTRY.pack(bytes.fromhex(request_id.replace("-", "")), received_at)
        if len(self._entries) > self._ids_max:
            del self._entries[next(iter(self._entries))]

    def forget(self, *, before: float, steps_max: int = 10_000) -> None:
        """Drop entries received before that time, at most `steps_max` at once (call it every second)."""
        for _ in range(min(steps_max, len(self._entries))):
            oldest = next(iter(self._entries))
            if _ENTRY.unpack(self._entries[oldest])[1] >= before:
                return
            del self._entries[oldest]
