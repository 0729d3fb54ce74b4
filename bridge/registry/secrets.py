"""Seals what must not lie on the disk in plain: AES-256-GCM by a key of its own each, which another key wraps.

Envelope encryption: a value's own key is wrapped by the newest key-encryption key of the key file (`aws/lambda`), or by
AWS KMS. What a value belongs to is bound to both, so that nothing sealed can be moved to another function or version.
"""

import base64
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bridge.core.errors import SealBroken
from bridge.registry.keyring import Key, append_key, keep_key, make_file, new_key, read_keys

KEY_NAME: Final = "aws/lambda"
"""Name of the keys of the key file, as AWS calls the one that it uses where no other is asked for."""
VERSION: Final = 2
"""Of the sealed document. The first one had no member `v`, bound a text, and did not name the file's key."""
_NONCE_BYTES: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What a sealed value belongs to."""

    function_arn: str
    """Unqualified."""
    version: str
    name: str = "Environment"

    def context(self) -> dict[str, str]:
        """Return it as an encryption context of KMS."""
        return {"FunctionArn": self.function_arn, "Name": self.name, "Version": self.version}

    def data(self, document_version: int = VERSION) -> bytes:
        """Return the bytes that are authenticated with what is encrypted."""
        if document_version == 1:
            return f"{self.function_arn}:{self.version}:{self.name}".encode()
        return orjson.dumps(self.context(), option=orjson.OPT_SORT_KEYS)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataKey:
    """A value's own key that KMS made."""

    plain: bytes = field(repr=False)
    wrapped: bytes
    key: str
    """ARN of the key of KMS that wrapped it."""


class Seal:
    """Seals and opens by a key file, which is made (0600) when something is sealed for the first time.

    Blocking; the file is read once.

    Args:
        path: the key file, outside the state folder: who copies the one does not have the other.
        now: epoch seconds.
    """

    def __init__(self, path: Path, *, now: Callable[[], float] = time.time) -> None:
        self.path = path
        self._now = now
        self._newest = ""
        self._keys: dict[str, AESGCM] = {}
        """By id. One that has left the file stays: somebody may hold what it wrapped, read a moment ago."""

    # --- values -------------------------------------------------------------------------------------------------

    def close(self, plain: bytes, *, bound_to: Binding, data_key: DataKey | None = None) -> str:
        """Return a value sealed, as text.

        Args:
            plain: it.
            bound_to: what it belongs to; must be the same when it is opened.
            data_key: of KMS, made for the same; left out: the key file's wraps it.

        Raises:
            SealBroken: the key file cannot be read or made.
        """
        bound = bound_to.data()
        if data_key is None:
            key = self._newest_key()
            own = AESGCM.generate_key(bit_length=256)
            by = {"key": KEY_NAME, "id": self._newest, "wrapped": _encrypt(key, own, bound)}
        else:
            own = data_key.plain
            by = {"key": data_key.key, "wrapped": base64.b64encode(data_key.wrapped).decode("ascii")}
        return _text({"v": VERSION, **by, "value": _encrypt(AESGCM(own), plain, bound)})

    def open(self, sealed: str, *, bound_to: Binding, own: bytes | None = None) -> bytes:
        """Return what was sealed.

        Args:
            sealed: it.
            bound_to: what it belongs to.
            own: the value's own key, of a value whose key KMS has unwrapped.

        Raises:
            SealBroken: the key file is missing or another one, or the value was changed or moved.
        """
        try:
            found = _document(sealed)
            own = self._own(found, bound_to)[1] if own is None else own
            return _decrypt(AESGCM(own), found["value"], bound_to.data(found["v"]))
        except (InvalidTag, ValueError, KeyError, TypeError) as error:
            raise self._broken() from error

    # --- keys ---------------------------------------------------------------------------------------------------

    def keys(self) -> tuple[Key, ...]:
        """Return the keys of the file, newest first; none: there is no file. Raises SealBroken."""
        try:
            return self._read()
        except FileNotFoundError:
            return ()

    def holder(self, sealed: str, *, bound_to: Binding) -> str:
        """Return the id of the file's key that wraps a value's own, or the ARN of KMS's. Raises SealBroken: none."""
        if key := kms_key(sealed):
            return key
        try:
            return self._own(_document(sealed), bound_to)[0]
        except (InvalidTag, ValueError, KeyError, TypeError) as error:
            raise self._broken() from error

    def rewrap(self, sealed: str, *, bound_to: Binding) -> str:
        """Return a value whose own key the newest key of the file wraps; the value itself is not encrypted again.

        One of KMS, and one that is so already, come back as they are.

        Raises:
            SealBroken: no key of the file opens it.
        """
        if kms_key(sealed):
            return sealed
        try:
            found = _document(sealed)
            holder, own = self._own(found, bound_to)
            if holder == self._newest and "id" in found:
                return sealed
            bound = bound_to.data(found["v"])
            fresh = {"key": KEY_NAME, "id": self._newest, "wrapped": _encrypt(self._newest_key(), own, bound)}
            # Of an earlier form the binding stays as it is: the value is not touched.
            return _text({"v": found["v"], **fresh, "value": found["value"]})
        except (InvalidTag, ValueError, KeyError, TypeError) as error:
            raise self._broken() from error

    def add_key(self) -> bool:
        """Put a newer key into the file; False: an earlier rotation had, and was cut short.

        Raises:
            SealBroken: there is no usable file, or it cannot be written.
        """
        self._load(make=False)
        keys = self.keys()
        if len(keys) > 1:
            return False
        # Newer than any by the file's own times, whatever the clock has done since.
        newest = new_key(max(self._now(), keys[0].made_at + 0.001))
        self._write(lambda: append_key(self.path, newest, keys[0]))
        return True

    def drop_keys(self) -> int:
        """Leave only the newest key in the file; returns how many went. Raises SealBroken."""
        keys = self.keys()
        if len(keys) > 1:
            self._write(lambda: keep_key(self.path, keys[0]))
        return max(0, len(keys) - 1)

    def _own(self, found: Mapping[str, Any], bound_to: Binding) -> tuple[str, bytes]:
        """Return which key of the file wraps a value's own key, and that."""
        self._load(make=False)
        named = found.get("id")
        ids = [named] if named is not None else list(self._keys)
        for key_id in ids:
            try:
                return key_id, _decrypt(self._keys[key_id], found["wrapped"], bound_to.data(found["v"]))
            except InvalidTag:
                if key_id == ids[-1]:
                    raise
        raise KeyError("no key")

    # --- the file -----------------------------------------------------------------------------------------------

    def _newest_key(self) -> AESGCM:
        self._load(make=True)
        return self._keys[self._newest]

    def _load(self, *, make: bool) -> None:
        if self._keys:
            return
        try:
            self._take(self._read())
        except FileNotFoundError as error:
            if not make:
                raise SealBroken(f"the key file {self.path.name} is missing: variables cannot be opened") from error
            self._write(lambda: make_file(self.path, new_key(self._now())))

    def _read(self) -> tuple[Key, ...]:
        try:
            return read_keys(self.path)
        except FileNotFoundError:
            raise
        except (OSError, ValueError) as error:
            raise self._unusable(error) from error

    def _write(self, change: Callable[[], None]) -> None:
        try:
            change()
        except OSError as error:
            raise self._unusable(error) from error
        self._take(self._read())

    def _take(self, keys: tuple[Key, ...]) -> None:
        self._keys |= {key.id: AESGCM(key.secret) for key in keys}
        self._newest = keys[0].id

    def _unusable(self, error: OSError | ValueError) -> SealBroken:
        what = error.strerror if isinstance(error, OSError) else str(error)
        return SealBroken(f"the key file {self.path} cannot be used: {what}; see [api] key_file")

    def _broken(self) -> SealBroken:
        return SealBroken(
            f"what was sealed by {KEY_NAME} cannot be opened with {self.path.name}: another key, or damage"
        )


def kms_key(sealed: str) -> str:
    """Return the ARN of the key of KMS that wraps a sealed value's own; empty: one of the key file does."""
    try:
        key = str(_document(sealed)["key"])
    except (ValueError, KeyError, TypeError):
        return ""
    return "" if key == KEY_NAME else key


def wrapped_key(sealed: str) -> bytes:
    """Return a value's own key as it is wrapped. Raises SealBroken: it is not what was sealed."""
    try:
        return base64.b64decode(_document(sealed)["wrapped"], validate=True)
    except (ValueError, KeyError, TypeError) as error:
        raise SealBroken("what was sealed is damaged") from error


def unwrapped_part(sealed: str) -> str:
    """Return what of a sealed value stays when its own key is wrapped anew."""
    try:
        return str(_document(sealed)["value"])
    except (ValueError, KeyError, TypeError):
        return sealed


def _document(sealed: str) -> dict[str, Any]:
    found = orjson.loads(sealed)
    if not isinstance(found, dict) or found.setdefault("v", 1) not in (1, VERSION):
        raise ValueError("not a sealed document that is known here")
    return found


def _text(document: Mapping[str, object]) -> str:
    return orjson.dumps(document).decode("ascii")


def _encrypt(key: AESGCM, plain: bytes, bound: bytes) -> str:
    nonce = os.urandom(_NONCE_BYTES)
    return base64.b64encode(nonce + key.encrypt(nonce, plain, bound)).decode("ascii")


def _decrypt(key: AESGCM, sealed: str, bound: bytes) -> bytes:
    data = base64.b64decode(sealed, validate=True)
    return key.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], bound)
