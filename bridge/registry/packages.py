"""What stands in a function's folder: its digest, its size, and whether it can hold the handler."""

import base64
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bridge.core import limits
from bridge.core.errors import ConfigError

UNZIPPED_MAX_BYTES: Final = 250 * limits.MIB
"""Code with its layers (gettingstarted-limits.html: 262,144,000 bytes)."""
FILES_MAX: Final = 100_000
FOLDERS_DEEP_MAX: Final = 64
IGNORED: Final = frozenset({"__pycache__", ".git", ".hg", ".svn"})
"""Names that are no part of a function: the interpreter's and version control's own."""
HANDLER_FORM: Final = "must be module.function, such as app.handler or folder/app.handler"
_HANDLER: Final = re.compile(r"[^\s]+\Z")


def code_sha256(key: str) -> str:
    """Return CodeSha256, as Lambda's API shows it, of a package by its key: the same digest in hexadecimal."""
    return base64.b64encode(bytes.fromhex(key)).decode("ascii")


def digest_folder(path: Path | str) -> str:
    """Return a digest (hex) that changes when a file below `path` does.

    It covers names, the x bit, sizes and the times of the last change, not contents: 100,000 files take about
    a second. ctime is among them because an editor or rsync can put mtime back, but not that.
    Links are followed, as an import follows them.

    Raises:
        ConfigError: no such folder, unreadable, larger than 250 MiB, more than 100,000 files, nested too deeply.
    """
    root = os.fspath(path)
    digest = hashlib.sha256()
    size = 0
    for count, (name, status) in enumerate(walk(root), start=1):
        digest.update(name.encode("utf-8", "surrogateescape"))
        if status is None or not stat.S_ISREG(status.st_mode):
            digest.update(b"\0-\n")  # a socket, a dangling link: there, but nothing to run
        else:
            size += status.st_size
            executable = bool(status.st_mode & 0o111)
            facts = f"\0{executable:d} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}\n"
            digest.update(facts.encode())
        if count > FILES_MAX:
            raise ConfigError(f"{root}: more than {FILES_MAX} files")
        if size > UNZIPPED_MAX_BYTES:
            raise ConfigError(f"{root}: unzipped size must be smaller than {UNZIPPED_MAX_BYTES} bytes")
    return digest.hexdigest()


def folder_size(path: Path | str) -> int:
    """Return the bytes of all files below a folder, as they are counted against the limit; see `digest_folder`."""
    found = (status for _, status in walk(os.fspath(path)))
    return sum(status.st_size for status in found if status is not None and stat.S_ISREG(status.st_mode))


def folder_files(path: Path | str) -> Iterator[str]:
    """Yield the relative names of all files below a folder; links are followed, what is no file is left out.

    Raises:
        ConfigError: no such folder, unreadable, nested too deeply, more than 100,000 files.
    """
    root, count = os.fspath(path), 0
    for name, status in walk(root):
        if status is not None and stat.S_ISREG(status.st_mode):
            count += 1
            if count > FILES_MAX:
                raise ConfigError(f"{root}: more than {FILES_MAX} files")
            yield name


def walk(root: str) -> Iterator[tuple[str, os.stat_result | None]]:
    """Yield every file's relative name and status in one order; a folder that contains itself is entered once.

    Raises:
        ConfigError: unreadable, or nested too deeply.
    """
    pending: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]
    while pending:
        folder, above = pending.pop()
        path = f"{root}/{folder}"
        try:
            status = os.stat(path)  # noqa: PTH116 - pathlib would double the time of large folders
            with os.scandir(path) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            if folder and isinstance(error, FileNotFoundError):
                continue  # removed while we looked: the same as never there
            raise ConfigError(f"{path.rstrip('/')}: {(error.strerror or 'unreadable').lower()}") from None
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            continue
        if len(above) >= FOLDERS_DEEP_MAX:
            raise ConfigError(f"{root}: more than {FOLDERS_DEEP_MAX} folders deep")
        for entry in entries:
            if entry.name in IGNORED:
                continue
            name = f"{folder}/{entry.name}" if folder else entry.name
            try:
                if entry.is_dir():
                    pending.append((name, (*above, identity)))
                else:
                    yield name, entry.stat()
            except OSError:
                yield name, None


def handler_mistake(handler: str, *, is_python: bool = True) -> str:
    """Return what is wrong with the text of a handler, or nothing.

    The rules of Python's are awslambdaric's: `folder/module.function`, split at the last dot, `/` read as a dot.
    """
    if not _HANDLER.match(handler) or len(handler) > limits.HANDLER_MAX_CHARS:
        return f"must be 1..{limits.HANDLER_MAX_CHARS} characters without spaces"
    if not is_python:
        return ""
    module, dot, function = handler.rpartition(".")
    if not dot or not module or not function:
        return HANDLER_FORM
    if not all(module.replace("/", ".").split(".")) or not function.isidentifier():
        return HANDLER_FORM
    return ""


def handler_files(handler: str) -> tuple[str, ...]:
    """Return the relative paths of which one must exist for the handler's module to be found."""
    module = handler.rpartition(".")[0].replace(".", "/")
    return f"{module}.py", f"{module}/__init__.py"


def has_handler(code: Path, handler: str) -> bool:
    """Say whether the folder holds the handler's module, as source, package, byte code or extension."""
    if any((code / name).is_file() for name in handler_files(handler)):
        return True
    stem = code / handler.rpartition(".")[0].replace(".", "/")
    return any(stem.parent.glob(f"{stem.name}.*so")) or stem.with_suffix(".pyc").is_file()
