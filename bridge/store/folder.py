"""The state folder: its tree, the lock that gives it to one daemon, its layout version and the admin token."""

import errno
import fcntl
import json
import os
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog

from bridge.core.errors import StoreBusy, StoreCorrupt, StoreError, StoreFull, StoreTooNew

log = structlog.get_logger("bridge.store")

LAYOUT: Final = 1
"""Version of the tree below; raised only when a folder moves or changes its meaning."""
NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FOLDER_MODE: Final = 0o700
_FILE_MODE: Final = 0o600
_TOKEN_BYTES: Final = 32
_LOCK_MAX_BYTES: Final = 1024
_META_MAX_BYTES: Final = 64 * 1024


class StateFolder:
    """One daemon's state. `open()` takes it, `close()` gives it back; a kill -9 gives it back too.

    The lock is an flock on a close-on-exec descriptor: it goes with the daemon's process, and no worker
    that outlives the daemon holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links that an operator swaps
        self.token = ""
        """The admin token, once open."""
        self._lock: int | None = None

    # --- the tree -----------------------------------------------------------------------------

    @property
    def lock_path(self) -> Path:
        """Holds the flock; its text names the owner."""
        return self.path / "lock"

    @property
    def token_path(self) -> Path:
        """The admin token, 0600."""
        return self.path / "token"

    @property
    def meta_path(self) -> Path:
        """Layout version and date of birth, JSON."""
        return self.path / "meta.json"

    @property
    def shared(self) -> Path:
        """What all processes of one installation share: the catalog."""
        return self.path / "shared"

    @property
    def packages(self) -> Path:
        """Code of functions that Lambda's API made: what workers may read of this folder."""
        return self.shared / "packages"

    @property
    def partition(self) -> Path:
        """What the first (today: only) daemon process owns: journal, outcomes, parked events, dead letters."""
        return self.path / "p0"

    @property
    def logs(self) -> Path:
        """Logs of functions."""
        return self.path / "logs"

    @property
    def run(self) -> Path:
        """Sockets and pid files."""
        return self.path / "run"

    # --- life ---------------------------------------------------------------------------------

    def open(self) -> None:
        """Take the folder, making it at first start. Blocking, a millisecond.

        Raises:
            StoreBusy: another daemon has it.
            StoreError: a newer version wrote it, or it cannot be written; nothing was changed.
            StoreCorrupt: `meta.json` is not what a daemon wrote.
            StoreFull: no space to make it.
        """
        if self._lock is not None:
            raise StoreError(f"state folder {self.path} is already open in this process")
        try:
            self._take()
        except OSError as error:
            self.close()
            kind = StoreFull if error.errno in NO_SPACE else StoreError
            raise kind(f"state folder {self.path} cannot be used: {error.strerror} ({error.filename})") from error
        except BaseException:
            self.close()
            raise

    def _take(self) -> None:
        self.path.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        self._lock = os.open(self.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._lock, _LOCK_MAX_BYTES, 0).decode("utf-8", "replace").strip()
            raise StoreBusy(
                f"state folder {self.path} is in use by another daemon ({owner or 'which is just starting'}); "
                "stop it, or choose another folder with BRIDGE_STATE"
            ) from None
        created_at = self._read_layout()
        self._tighten()
        for folder in (self.shared, self.packages, self.partition, self.logs, self.run):
            folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)
        if created_at is None:
            meta = {"layout": LAYOUT, "created_at": round(time.time(), 3)}
            write_durably(self.meta_path, json.dumps(meta).encode() + b"\n")
        self.token = self._read_token()
        sync_folder(self.path)
        self._sign()

    def close(self) -> None:
        """Give the folder back; twice is fine."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # --- steps --------------------------------------------------------------------------------

    def _read_layout(self) -> float | None:
        try:
            with self.meta_path.open("rb") as file:
                meta = json.loads(file.read(_META_MAX_BYTES))
            layout, created_at = int(meta["layout"]), float(meta["created_at"])
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError):
            raise StoreCorrupt(
                f"{self.meta_path} is damaged: it should read like "
                f'{{"layout": {LAYOUT}, "created_at": 0}}; `bridge doctor` says what can be done'
            ) from None
        if layout > LAYOUT:
            raise StoreTooNew(
                f"state folder {self.path} was written by a newer bridge (layout {layout}, this one knows {LAYOUT}): "
                "nothing was changed; start the newer one, or choose another folder with BRIDGE_STATE"
            )
        return created_at

    def _tighten(self) -> None:
        """Take other users' access away, where the folder is ours (a mounted volume's root may not be)."""
        if self.path.stat().st_mode & 0o077:
            try:
                self.path.chmod(_FOLDER_MODE)
            except PermissionError:
                log.warning(
                    "state_folder_shared", folder=self.path.name, reason="others may list it; not ours to change"
                )

    def _read_token(self) -> str:
        """Return the admin token, made at first start and never again."""
        try:
            token = self.token_path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            token = ""
        except UnicodeDecodeError:
            raise StoreCorrupt(f"{self.token_path} is damaged: delete it, and the next start makes another") from None
        if token:
            if self.token_path.stat().st_mode & 0o077:
                self.token_path.chmod(_FILE_MODE)
            return token
        # An empty file would be a token that everybody knows: it counts as absent.
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        write_durably(self.token_path, token.encode() + b"\n")
        log.info("token_created", file=self.token_path.name)
        return token

    def _sign(self) -> None:
        assert self._lock is not None
        started = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"pid {os.getpid()}, started {started}\n".encode(), 0)


def write_durably(path: Path, data: bytes) -> None:
    """Replace a file as a whole (0600): after a crash it holds the old bytes or the new ones.

    Raises:
        OSError: not written; the old file is untouched.
    """
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make creations, renames and deletions in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
