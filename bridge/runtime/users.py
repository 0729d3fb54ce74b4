"""The user id of each function's workers when the daemon is root: its own, and the same after a restart."""

import contextlib
import os
import zlib
from pathlib import Path
from typing import Final

from bridge.core.errors import RuntimeUnavailable

FIRST: Final = 30_000
COUNT: Final = 20_000


class Users:
    """Assigns user ids `FIRST` to `FIRST + COUNT - 1`, never one to two names.

    A name gets the id that its checksum points at, or the next free one; the file remembers which, so that what a
    function left on disk is never another one's.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ids: dict[str, int] = {}
        self._taken: set[int] = set()
        with contextlib.suppress(OSError):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                self._remember(line)

    def _remember(self, line: str) -> None:
        number, _, name = line.partition(" ")
        if not (name and number.isdecimal()):
            return  # a torn line: the name gets the same id again, or another that is free
        user = int(number)
        if FIRST <= user < FIRST + COUNT and user not in self._taken and name not in self._ids:
            self._ids[name] = user
            self._taken.add(user)

    def of(self, name: str) -> int:
        """Return the user id of the function `name`.

        Raises:
            RuntimeUnavailable: there were more names than ids, over the life of the file.
        """
        user = self._ids.get(name)
        if user is None:
            user = self._ids[name] = self._free(zlib.crc32(name.encode()) % COUNT)
            self._taken.add(user)
            with contextlib.suppress(OSError):  # a full disk: unique for as long as the daemon runs
                self._append(f"{user} {name}\n")
        return user

    def _free(self, wanted: int) -> int:
        for step in range(COUNT):
            user = FIRST + (wanted + step) % COUNT
            if user not in self._taken:
                return user
        raise RuntimeUnavailable(f"{COUNT} functions have had a user id of their own: remove {self._path}")

    def _append(self, line: str) -> None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = "\n" + line
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
