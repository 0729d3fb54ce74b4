"""Seals what must not lie on the disk in plain: AES-256-GCM by a key of its own each, which a local key file wraps.

Envelope encryption: a value's own key is wrapped by the key-encryption key of the file, whose name (`aws/lambda`) is
kept beside it. What a value belongs to is bound to both, so that nothing sealed can be moved to another function.
"""

import base64
import os
import stat
from pathlib import Path
from typing import Final

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bridge.core.errors import BridgeError

KEY_NAME: Final = "aws/lambda"
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12


class SealBroken(BridgeError):
    """A sealed value cannot be opened, or nothing sealed: the key file is missing, unusable, or another one."""


class Seal:
    """Seals and opens by a key file, which is made (0600) when something is sealed for the first time.

    Blocking; the file is read once.

    Args:
        path: the key file, outside the state folder: who copies the one does not have the other.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._key: AESGCM | None = None

    def close(self, plain: bytes, *, bound_to: str) -> str:
        """Return a value sealed, as text.

        Args:
            plain: it.
            bound_to: what it belongs to; must be the same when it is opened.

        Raises:
            SealBroken: the key file cannot be read or made.
        """
        key = self._load(make=True)
        own, bound = AESGCM.generate_key(bit_length=_KEY_BYTES * 8), bound_to.encode()
        sealed = {"key": KEY_NAME, "wrapped": _encrypt(key, own, bound), "value": _encrypt(AESGCM(own), plain, bound)}
        return orjson.dumps(sealed).decode("ascii")

    def open(self, sealed: str, *, bound_to: str) -> bytes:
        """Return what was sealed.

        Raises:
            SealBroken: the key file is missing or another one, or the value was changed or moved.
        """
        key, bound = self._load(make=False), bound_to.encode()
        try:
            found = orjson.loads(sealed)
            return _decrypt(AESGCM(_decrypt(key, found["wrapped"], bound)), found["value"], bound)
        except (InvalidTag, ValueError, KeyError, TypeError) as error:
            text = f"what was sealed by {KEY_NAME} cannot be opened with {self._path.name}: another key, or damage"
            raise SealBroken(text) from error

    def _load(self, *, make: bool) -> AESGCM:
        if self._key is None:
            try:
                self._key = AESGCM(self._read_or_make() if make else _read(self._path))
            except FileNotFoundError as error:
                raise SealBroken(f"the key file {self._path.name} is missing: variables cannot be opened") from error
            except (OSError, ValueError) as error:
                what = error.strerror if isinstance(error, OSError) else str(error)
                raise SealBroken(f"the key file {self._path} cannot be used: {what}; see [api] key_file") from error
        return self._key

    def _read_or_make(self) -> bytes:
        try:
            return _read(self._path)
        except FileNotFoundError:
            _make(self._path)
            return _read(self._path)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ValueError("others may read it (chmod 600)")
        text = file.read(1024)
    key = base64.b64decode(text.strip(), validate=True)
    if len(key) != _KEY_BYTES:
        raise ValueError(f"it must hold {_KEY_BYTES} bytes in base64")
    return key


def _make(path: Path) -> None:
    """Make the file as a whole: a crash leaves none, or one that opens what was sealed."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(base64.b64encode(os.urandom(_KEY_BYTES)) + b"\n")
        file.flush()
        os.fsync(descriptor)
    fresh.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _encrypt(key: AESGCM, plain: bytes, bound: bytes) -> str:
    nonce = os.urandom(_NONCE_BYTES)
    return base64.b64encode(nonce + key.encrypt(nonce, plain, bound)).decode("ascii")


def _decrypt(key: AESGCM, sealed: str, bound: bytes) -> bytes:
    data = base64.b64decode(sealed, validate=True)
    return key.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], bound)
