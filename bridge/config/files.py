"""Reads a small regular file whole, or says in a few words why not; never waits, never reads more than asked."""

import os
import stat
from pathlib import Path


class Unreadable(Exception):
    """Why a file cannot be read, in a few lower-case words."""


def read_small(path: Path | str, *, max_bytes: int) -> bytes:
    """Return the content of a regular file of at most `max_bytes`.

    Raises:
        Unreadable: missing, a folder, no regular file, too large, no permission, a loop of links.
    """
    try:
        # Opened without blocking: a FIFO would wait for a writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISDIR(mode):
                raise Unreadable("is a folder, not a file")
            if not stat.S_ISREG(mode):
                raise Unreadable("not a regular file")
            with open(descriptor, "rb", closefd=False) as file:
                raw = file.read(max_bytes + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Unreadable(reason(error)) from None
    except ValueError:  # a NUL in the path, or characters that no file name has
        raise Unreadable("not a path") from None
    if len(raw) > max_bytes:
        raise Unreadable(f"larger than {max_bytes:,} bytes")
    return raw


def beside(folder: Path | str, written: str | Path) -> Path:
    """Return an absolute path; a relative one starts at `folder`.

    Links stay as they are: a link that is turned to a new release is how releases are switched.
    """
    return Path(os.path.abspath(Path(folder) / written))  # noqa: PTH100 - resolve() follows links


def reason(error: OSError) -> str:
    """Return what went wrong, without number and path."""
    text = error.strerror or "cannot be read"
    return text[:1].lower() + text[1:]
