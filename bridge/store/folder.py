"""The state folder: its layout, its lock, its admin token."""

import fcntl
import json
import os
import secrets
from pathlib import Path
from typing import Final

from bridge.core.errors import StoreBusy, StoreError

LAYOUT: Final = 1
"""Version of the folder's layout; a newer one is refused."""


class StateFolder:
    """`STATE/{lock,token,meta.json}`, `shared/`, `p0/`, `logs/`, `run/`; 0700, files 0600."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.token = ""
        self._lock: int | None = None

    @property
    def partition(self) -> Path:
        """The folder of journal, outcomes, parked events and dead letters: one writer each."""
        return self.path / "p0"

    @property
    def logs(self) -> Path:
        """Function logs."""
        return self.path / "logs"

    @property
    def run(self) -> Path:
        """Sockets and pid files."""
        return self.path / "run"

    def open(self) -> None:
        """Make the tree, take the lock, check the layout, read or make the token.

        Raises:
            StoreBusy: a daemon has it.
            StoreError: it cannot be written, or a newer version made it; nothing was changed.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._take_lock()
            try:
                self._check_layout()
                for folder in (self.path / "shared", self.partition, self.logs, self.run):
                    folder.mkdir(mode=0o700, exist_ok=True)
                self.token = self._read_token()
            except BaseException:
                self.close()
                raise
        except OSError as error:
            raise StoreError(f"state folder {self.path}: {error.strerror or error}") from error

    def _take_lock(self) -> None:
        # Close-on-exec: a worker that outlives its daemon must not hold the lock.
        fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise StoreBusy(
                f"state folder {self.path} is in use by another daemon (pid {pid}); stop it, or set BRIDGE_STATE "
                "to another folder"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        self._lock = fd

    def _check_layout(self) -> None:
        meta = self.path / "meta.json"
        try:
            layout = int(json.loads(meta.read_text())["layout"])
        except FileNotFoundError:
            _write(meta, json.dumps({"layout": LAYOUT}))
            return
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{meta} cannot be read ({error}); restore it, or run `bridge doctor`") from error
        if layout > LAYOUT:
            raise StoreError(
                f"state folder {self.path} was made by a newer bridge (layout {layout}, this one knows {LAYOUT}); "
                "start that version"
            )

    def _read_token(self) -> str:
        path = self.path / "token"
        try:
            token = path.read_text().strip()
        except FileNotFoundError:
            token = ""
        if not token:
            token = secrets.token_urlsafe(32)
            _write(path, token + "\n")
        return token

    def close(self) -> None:
        """Let go of the lock; twice is fine."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _write(path: Path, text: str) -> None:
    """Write a small file of 0600 durably: whole or not at all."""
    temporary = path.with_suffix(".new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, text.encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    temporary.rename(path)
