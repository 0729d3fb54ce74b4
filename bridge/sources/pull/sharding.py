"""Which shard a stored record belongs to: a stable hash of its key, which a mapping names (pure)."""

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from zlib import crc32

import orjson

from bridge.core.record import Record

KeyOf = Callable[[Record], bytes]
"""Returns a record's key."""

_HEADER: Final = "header:"
_BODY: Final = "body:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharding:
    """How a stream's records are spread: by key over a number of shards.

    The hash is crc32, the same on every machine and in every release: a key stays in its shard.
    """

    shards: int
    key: str = ""
    """`header:NAME`, `body:FIELD[.FIELD…]`, or empty: each record its own (by its id)."""
    key_of: KeyOf = field(compare=False)

    @property
    def layout(self) -> str:
        """What a mark's meaning hangs on: with another layout the same position is another prefix."""
        return f"{self.shards} {self.key}"

    def place(self, record: Record) -> tuple[int, bytes]:
        """Return the number of the record's shard and its key."""
        key = self.key_of(record)
        return crc32(key) % self.shards, key


def push_sharding(*, shards: int, key: str = "") -> Sharding:
    """Return the sharding of a push source.

    A record without that header or field is kept apart by its id.

    Raises:
        ValueError: `key` has none of the known forms.
    """
    if not key:
        return Sharding(shards=shards, key_of=_id)
    if key.startswith(_HEADER) and len(key) > len(_HEADER):
        return Sharding(shards=shards, key=key, key_of=_header_key(key.removeprefix(_HEADER).lower()))
    path = tuple(key.removeprefix(_BODY).split("."))
    if not key.startswith(_BODY) or not all(path):
        raise ValueError("key must be header:NAME or body:FIELD[.FIELD…]")
    return Sharding(shards=shards, key=key, key_of=_body_key(path))


def _id(record: Record) -> bytes:
    return record.id.encode()


def _header_key(name: str) -> KeyOf:
    def key_of(record: Record) -> bytes:
        headers = _member(_parsed(record.payload), "headers")
        value = _member(headers, name)
        return _id(record) if value is None else _bytes(value)

    return key_of


def _body_key(path: tuple[str, ...]) -> KeyOf:
    def key_of(record: Record) -> bytes:
        event = _parsed(record.payload)
        value = _member(event, "body")
        if isinstance(value, str):
            value = _body(value, is_base64=_member(event, "isBase64Encoded") is True)
        for name in path:
            value = _member(value, name)
        return _id(record) if value is None else _bytes(value)

    return key_of


def _parsed(text: bytes | str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _body(body: str, *, is_base64: bool) -> Any:
    if not is_base64:
        return _parsed(body)
    try:
        return _parsed(base64.b64decode(body, validate=True))
    except ValueError:
        return None


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _bytes(value: Any) -> bytes:
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else orjson.dumps(value)
