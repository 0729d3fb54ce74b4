"""How events, dead letters and jobs are written to a row and read back; large payloads lie in hold files."""

import base64
import os
import uuid
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import orjson

from bridge.core import limits
from bridge.core.errors import StoreError, StoreFull
from bridge.core.invocation import Attempt, AttemptStatus, Condition, DeadLetter, InvocationType
from bridge.core.record import Parked, Record

_BYTES: Final = frozenset({"payload", "client_context", "response", "log_tail"})


class HoldFolder:
    """Payloads too large for a row, one fsynced file each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self) -> None:
        """Make the folder."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def keep(self, payload: bytes) -> str:
        """Store durably; returns the file's name.

        Raises:
            StoreFull: no space.
        """
        name = uuid.uuid4().hex
        path = self._folder / name
        try:
            with path.open("wb") as file:
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise StoreFull(f"hold file: {error.strerror}; nothing was written") from error
        return name

    def read(self, name: str) -> bytes:
        """Return a payload."""
        try:
            return (self._folder / name).read_bytes()
        except OSError as error:
            raise StoreError(f"hold file {name} is gone: {error.strerror}") from error

    def drop(self, name: str) -> None:
        """Delete; twice is fine."""
        if name:
            (self._folder / name).unlink(missing_ok=True)

    def sweep(self, needed: set[str]) -> None:
        """Delete files that no row names (left by a crash between file and row)."""
        for path in self._folder.iterdir():
            if path.name not in needed:
                path.unlink(missing_ok=True)


def is_large(payload: bytes) -> bool:
    """Tell whether a payload goes to a hold file."""
    return len(payload) > limits.PARKED_INLINE_MAX_BYTES


def dump(value: Parked | DeadLetter, *, keep_payload: bool) -> bytes:
    """Return a value as JSON, bytes as base64; without the payload unless `keep_payload`."""
    document = asdict(value)
    if not keep_payload:
        (document["record"] if isinstance(value, Parked) else document)["payload"] = b""
    return orjson.dumps(document, default=_encode)


def _encode(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(type(value).__name__)


def _decoded(document: dict[str, Any]) -> dict[str, Any]:
    return {key: base64.b64decode(value) if key in _BYTES else value for key, value in document.items()}


def load_parked(text: bytes, payload: bytes | None) -> Parked:
    """Return what `dump` wrote; `payload` from a hold file, None when it is inside."""
    document = _decoded(orjson.loads(text))
    record = _decoded(document.pop("record"))
    record["invocation_type"] = InvocationType(record["invocation_type"])
    if payload is not None:
        record["payload"] = payload
    return Parked(record=Record(**record), **document)


def load_letter(text: bytes, payload: bytes | None) -> DeadLetter:
    """Return what `dump` wrote."""
    document = _decoded(orjson.loads(text))
    document["condition"] = Condition(document["condition"])
    history = tuple(
        Attempt(**{**_decoded(each), "status": AttemptStatus(each["status"])}) for each in document.pop("history")
    )
    letter = DeadLetter(**document, history=history)
    return letter if payload is None else replace(letter, payload=payload)
