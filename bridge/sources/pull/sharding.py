"""Which shard a stored record belongs to: a stable hash of its key, which a mapping names (pure)."""

import base64
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final
from zlib import crc32

import orjson

KeyOf = Callable[[str, bytes, bytes], bytes]
"""Returns a record's key, from its id, its payload and the key that its source stored."""

_HEADER: Final = "header:"
_BODY: Final = "body:"
_TOPIC: Final = "topic"
_INDEX: Final = re.compile(r"[0-9]{1,9}\Z")
_LEVEL: Final = re.compile(r"topic:([1-9][0-9]{0,4})\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharding:
    """How a stream's records are spread: by key over a number of shards.

    The hash is crc32, the same on every machine and in every release: a key stays in its shard.
    """

    shards: int
    key: str = ""
    """`header:NAME`, `body:FIELD[.FIELD…]` (a number counts in a list), `topic`, `topic:N`, or empty: each record its
    own (by its id)."""
    key_of: KeyOf = field(compare=False)

    @property
    def layout(self) -> str:
        """What a mark's meaning hangs on: with another layout the same position is another prefix."""
        return f"{self.shards} {self.key}"

    def place(self, record_id: str, payload: bytes, stored_key: bytes = b"") -> tuple[int, bytes]:
        """Return the number of the record's shard and its key."""
        key = self.key_of(record_id, payload, stored_key)
        return crc32(key) % self.shards, key

    def place_damaged(self, record_id: str, payload: bytes) -> tuple[int, bool]:
        """Return the number of a damaged record's shard, and whether that is sure: a key is part of the damaged."""
        if self.key:
            with suppress(ValueError):
                return self.place(record_id, payload)[0], False
        return crc32(record_id.encode()) % self.shards, not self.key


def push_sharding(*, shards: int, key: str = "", body: "BodyOf | None" = None) -> Sharding:
    """Return the sharding of a push source.

    A record without that header, field or topic is kept apart by its id.

    Args:
        shards: how many there are.
        key: see `Sharding.key`.
        body: returns an event's body; left out: that of an HTTP event.

    Raises:
        ValueError: `key` has none of the known forms.
    """
    if not key:
        return Sharding(shards=shards, key_of=_id)
    if key == _TOPIC:
        return Sharding(shards=shards, key=key, key_of=_topic)
    if found := _LEVEL.match(key):
        return Sharding(shards=shards, key=key, key_of=_level_key(int(found[1])))
    if key.startswith(_HEADER) and len(key) > len(_HEADER):
        return Sharding(shards=shards, key=key, key_of=_header_key(key.removeprefix(_HEADER).lower()))
    path = tuple(key.removeprefix(_BODY).split("."))
    if not key.startswith(_BODY) or not all(path):
        raise ValueError("key must be header:NAME or body:FIELD[.FIELD…], topic or topic:LEVEL")
    return Sharding(shards=shards, key=key, key_of=_body_key(path, body or body_of))


BodyOf = Callable[[bytes], bytes | None]
"""Returns an event's body as its sender sent it; None when it has none."""


def _id(record_id: str, payload: bytes, stored: bytes) -> bytes:
    del payload, stored
    return record_id.encode()


def _topic(record_id: str, payload: bytes, stored: bytes) -> bytes:
    del payload
    return stored or record_id.encode()


def _level_key(level: int) -> KeyOf:
    def key_of(record_id: str, payload: bytes, stored: bytes) -> bytes:
        del payload
        if stored[:1] == b"\0":
            return stored
        levels = stored.split(b"/", level)
        return levels[level - 1] if stored and level <= len(levels) else record_id.encode()

    return key_of


def _header_key(name: str) -> KeyOf:
    def key_of(record_id: str, payload: bytes, stored: bytes) -> bytes:
        del stored
        value = _header(_parsed(payload), name)
        return record_id.encode() if value is None else _bytes(value)

    return key_of


def _header(event: Any, name: str) -> Any:
    """Return a header of an HTTP event, its last value, None where it has none: by the shapes that routes make.

    Names are lower-case in API Gateway's format 2.0 and a load balancer's, as they were sent in format 1.0; a load
    balancer's multi-value headers are lists and alone.
    """
    headers = _member(event, "headers")
    if isinstance(headers, dict):
        if name in headers:
            return headers[name]
        return next((value for sent, value in headers.items() if sent.lower() == name), None)
    values = _member(_member(event, "multiValueHeaders"), name)
    return values[-1] if isinstance(values, list) and values else None


def _body_key(path: tuple[str, ...], body: BodyOf) -> KeyOf:
    def key_of(record_id: str, payload: bytes, stored: bytes) -> bytes:
        del stored
        value = _parsed(body(payload) or b"")
        for name in path:
            value = _item(value, int(name)) if isinstance(value, list) and _INDEX.match(name) else _member(value, name)
        return record_id.encode() if value is None else _bytes(value)

    return key_of


def _parsed(text: bytes | str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def body_of(payload: bytes) -> bytes | None:
    """Return the body of an event as its sender sent it; None when it has none."""
    event = _parsed(payload)
    body = _member(event, "body")
    if body is None:
        return None
    if not isinstance(body, str):
        return orjson.dumps(body)
    return _raw(body, is_base64=_member(event, "isBase64Encoded") is True)


def _raw(body: str, *, is_base64: bool) -> bytes:
    """Return a body's bytes; what is no base64, whatever it says, is taken as it is."""
    if is_base64:
        with suppress(ValueError):
            return base64.b64decode(body, validate=True)
    return body.encode("utf-8", "surrogatepass")


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _item(value: list[Any], number: int) -> Any:
    return value[number] if number < len(value) else None


def _bytes(value: Any) -> bytes:
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else orjson.dumps(value)
