"""The key file: key-encryption keys, a line each. A rotation appends one, and takes the others out in the end.

Both are done in the file itself: what is mounted over it, to hide it from workers, would not cover another file of its
name. An append leaves all that was there, and a file of a few keys fits into one sector, which is written as a whole.
"""

import base64
import datetime as dt
import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bridge.util.crash import crash_point

KEY_BYTES: Final = 32
KEYS_MAX: Final = 16
"""In one file; a rotation needs two."""
_FILE_MAX_BYTES: Final = 4096
_ID_CHARS: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key-encryption key."""

    secret: bytes = field(repr=False)
    made_at: float
    """Epoch seconds."""

    @property
    def id(self) -> str:
        """What it is called in sealed values: a hash that gives nothing away."""
        return hashlib.sha256(b"bridge key\0" + self.secret).hexdigest()[:_ID_CHARS]


def new_key(now: float) -> Key:
    """Return a key of the system's random numbers; `now` in epoch seconds."""
    return Key(secret=os.urandom(KEY_BYTES), made_at=now)


def read_keys(path: Path) -> tuple[Key, ...]:
    """Return the keys of a file, newest first: a line each, base64 and the time it was made (ISO 8601, UTC).

    A key without a time, as earlier versions wrote it, is as old as the file. A last line that was cut short, by a loss
    of power while it was appended, is none: nothing was wrapped by it yet. Blocking.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read.
        ValueError: it holds something else, or others may read it; the text says which.
    """
    with path.open("rb") as file:
        about = os.fstat(file.fileno())
        if about.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ValueError("others may read it (chmod 600)")
        *lines, rest = file.read(_FILE_MAX_BYTES).split(b"\n")
    keys = [_key(line, about.st_mtime) for line in lines if line.strip()]
    if rest.strip():
        try:
            keys.append(_key(rest, about.st_mtime, is_torn=True))
        except ValueError:
            if not keys:
                raise
    if not 1 <= len(keys) <= KEYS_MAX:
        raise ValueError(f"it must hold 1 to {KEYS_MAX} keys")
    return tuple(sorted(keys, key=lambda key: -key.made_at))


def _key(line: bytes, made_at: float, *, is_torn: bool = False) -> Key:
    text, _, written = line.decode("ascii", "replace").strip().partition(" ")
    try:
        secret = base64.b64decode(text, validate=True)
        if written and not is_torn:
            made_at = dt.datetime.fromisoformat(written).timestamp()
    except ValueError:
        secret = b""  # the text of the error might show the key
    if len(secret) != KEY_BYTES:
        raise ValueError(f"a line must hold {KEY_BYTES} bytes in base64, and when the key was made")
    return Key(secret=secret, made_at=made_at)


def make_file(path: Path, key: Key) -> None:
    """Make the file (0600) with one key, as a whole: a crash leaves none, or this. Durable; raises OSError."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(_line(key))
        file.flush()
        os.fsync(descriptor)
    fresh.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def append_key(path: Path, key: Key, before: Key) -> None:
    """Append a newer key to a file that holds one; durable. Raises OSError.

    Args:
        path: the file.
        key: the newer one.
        before: the one it holds, whose age is written with it: changing the file makes the file younger.
    """
    _overwrite(path, _line(before) + _line(key))


def keep_key(path: Path, key: Key) -> None:
    """Take every other key out of the file; durable, and their bytes are overwritten. Raises OSError."""
    _overwrite(path, _line(key))


def _overwrite(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        os.pwrite(descriptor, data.ljust(size, b"\n"), 0)
        crash_point("keys.written")
        os.fsync(descriptor)
        if size > len(data):
            os.ftruncate(descriptor, len(data))
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _line(key: Key) -> bytes:
    made_at = f"{dt.datetime.fromtimestamp(key.made_at, dt.UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
    return base64.b64encode(key.secret) + b" " + made_at.encode() + b"\n"
