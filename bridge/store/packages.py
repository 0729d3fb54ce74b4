"""Packages of functions, by the SHA-256 of their zip: unzipped once, read-only, and never trusted after a crash."""

import contextlib
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from bridge.core.errors import StoreCorrupt, StoreError, StoreFull
from bridge.registry.zips import read_zip
from bridge.store.folder import NO_SPACE, sync_folder, write_durably
from bridge.store.opt import PREFIX, make_folders, merge, opt_name, size_of

log = structlog.get_logger("bridge.store")

_ZIP: Final = "package.zip"
_CODE: Final = "code"
_DIGEST: Final = "digest"
_FRESH: Final = ".new-"
_GONE: Final = ".old-"
_CHUNK_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A zip that is kept, and what it unzips to."""

    key: str
    """SHA-256 of the zip, hexadecimal: its name in the store."""
    size: int
    """Bytes of the zip."""
    code: Path
    """Folder of its files."""
    zip: Path


class PackageStore:
    """One folder a package: the zip, which is synced, and its files, which are made from it anew when they differ.

    All methods block; none needs the loop. A folder appears whole, by a rename, or not at all.

    Args:
        folder: where packages are; made by `open`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, keys: Collection[str] = ()) -> frozenset[str]:
        """Make the folder, throw away what a crash left half done, and check the packages that are named.

        Files that are not what was unzipped are unzipped anew. Returns the keys of those that are lost: no zip, or
        one with other bytes.

        Raises:
            StoreFull: no space.
            StoreError: the folder cannot be used.
        """
        with self._translated():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for entry in list(self._folder.iterdir()):
                if entry.name.startswith((_FRESH, _GONE, PREFIX)):
                    _remove(entry)
            return frozenset(key for key in set(keys) if not self._repair(key))

    def add(self, file: Path) -> Package:
        """Keep a copy of a zip and unzip it; one that is there already costs its hash alone.

        What it unzips to is its limit: that of the zip itself depends on where it comes from.

        Raises:
            ZipRefused: it is no package, in AWS's words; nothing is kept.
            StoreFull: no space; nothing is kept.
            StoreError: the disk failed.
        """
        key = hash_file(file)
        with self._translated():
            if self._is_whole(key):
                return self.get(key)
            if (self._folder / key).exists():
                self._discard(key)
            fresh = self.temporary()
            fresh.mkdir(mode=0o700)
            try:
                _unzip(file, fresh / _CODE)
                _copy_durably(file, fresh / _ZIP)
                write_durably(fresh / _DIGEST, digest_code(fresh / _CODE).encode())
                fresh.rename(self._folder / key)
                sync_folder(self._folder)
            except BaseException:
                _remove(fresh)
                raise
        return self.get(key)

    def get(self, key: str) -> Package:
        """Return a package that is there.

        Raises:
            StoreCorrupt: it is not.
        """
        place = self._folder / key
        try:
            size = (place / _ZIP).stat().st_size
        except OSError as error:
            raise StoreCorrupt(f"the package {key} is gone: {error.strerror}") from error
        return Package(key=key, size=size, code=place / _CODE, zip=place / _ZIP)

    def opt(self, keys: Sequence[str]) -> Path:
        """Return the folder that packages are merged into, in this order; made when it is first asked for.

        Of one package it is that one's own.

        Raises:
            StoreCorrupt: one of them is not there.
            StoreFull: no space.
            StoreError: the disk failed.
        """
        layers = [self.get(key).code for key in keys]
        if len(layers) == 1:
            return layers[0]
        place = self._folder / opt_name(keys)
        if not place.exists():
            fresh = self.temporary()
            with self._translated():
                try:
                    merge(layers, fresh)
                    fresh.rename(place)
                except BaseException:
                    _remove(fresh)
                    raise
        return place

    def unzipped_size(self, key: str) -> int:
        """Return the bytes of a package's files.

        Raises:
            StoreCorrupt: it is not there.
        """
        return size_of(self.get(key).code)

    def temporary(self) -> Path:
        """Return a new path for a file or a folder that the next start throws away."""
        return self._folder / f"{_FRESH}{secrets.token_hex(8)}"

    def keys(self) -> frozenset[str]:
        """Return the keys of all packages, and the names of merged ones."""
        names = (entry.name for entry in self._folder.iterdir())
        return frozenset(name for name in names if name.startswith(PREFIX) or not name.startswith("."))

    def fault(self, key: str) -> str:
        """Return what is wrong with a package, to stand behind its name; empty: it is whole. Changes nothing."""
        if not (self._folder / key / _ZIP).is_file():
            return "is missing; give the code again"
        if self._is_whole(key):
            return ""
        if hash_file(self._folder / key / _ZIP) != key:
            return "has another hash than its name; give the code again"
        return "has files that are not its zip's; the next start unzips it anew"

    def remove(self, key: str) -> None:
        """Delete a package; one that is not there is fine.

        Raises:
            StoreError: it cannot be deleted.
        """
        with self._translated(), contextlib.suppress(FileNotFoundError):
            self._discard(key)

    # --- steps ----------------------------------------------------------------------------------

    def _discard(self, key: str) -> None:
        gone = self._folder / f"{_GONE}{secrets.token_hex(8)}"
        (self._folder / key).rename(gone)
        _remove(gone)

    def _is_whole(self, key: str) -> bool:
        place = self._folder / key
        try:
            if hash_file(place / _ZIP) != key:
                return False
            return (place / _DIGEST).read_text(encoding="ascii") == digest_code(place / _CODE)
        except (OSError, UnicodeDecodeError):
            return False

    def _repair(self, key: str) -> bool:
        """Make sure that a package's files are what its zip holds; False: it is lost."""
        if self._is_whole(key):
            return True
        place = self._folder / key
        try:
            is_lost = hash_file(place / _ZIP) != key
        except OSError:
            is_lost = True
        if is_lost:
            log.error("package_lost", package=key)
            return False
        log.warning("package_unzipped_anew", package=key)
        fresh = place / _FRESH  # beside the old one: a read-only folder cannot leave its parent
        _remove(fresh)
        try:
            _unzip(place / _ZIP, fresh)
            write_durably(place / _DIGEST, digest_code(fresh).encode())
            if (place / _CODE).exists():
                _remove(place / _CODE)
            fresh.rename(place / _CODE)
        except BaseException:
            _remove(fresh)
            raise
        return True

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            kind = StoreFull if error.errno in NO_SPACE else StoreError
            raise kind(f"packages cannot be kept: {error.strerror} ({self._folder.name})") from error


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_code(root: Path) -> str:
    """Return the SHA-256 over names, x bits and contents of all files below a folder; links count as what they are."""
    digest = hashlib.sha256()
    for folder, folders, files in os.walk(root):
        folders.sort()
        links = [name for name in folders if Path(folder, name).is_symlink()]
        for name in sorted((*files, *links)):
            path = Path(folder, name)
            status = path.lstat()
            digest.update(os.fsencode(path.relative_to(root)) + b"\0%o\0" % status.st_mode)
            if stat.S_ISREG(status.st_mode):
                digest.update(bytes.fromhex(hash_file(path)))
    return digest.hexdigest()


def _unzip(file: Path, target: Path) -> None:
    target.mkdir(mode=0o700)
    made: set[Path] = {target}
    output: int | None = None
    try:
        with file.open("rb") as archive:
            for piece in read_zip(archive):
                if piece.is_first:
                    if output is not None:
                        os.close(output)
                        output = None
                    path = target / piece.name
                    make_folders(path.parent, made)
                    output = _create(path, mode=0o555 if piece.is_executable else 0o444)
                _write(output, piece.data)
    finally:
        if output is not None:
            os.close(output)
    for folder in made:
        folder.chmod(0o555)


def _create(path: Path, *, mode: int) -> int:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    os.fchmod(descriptor, mode)  # whatever the umask is
    return descriptor


def _write(descriptor: int | None, data: bytes) -> None:
    assert descriptor is not None
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _copy_durably(source: Path, target: Path) -> None:
    with source.open("rb") as data, target.open("xb") as file:
        os.fchmod(file.fileno(), 0o600)
        shutil.copyfileobj(data, file, _CHUNK_BYTES)
        file.flush()
        os.fsync(file.fileno())


def _remove(folder: Path) -> None:
    """Delete a folder of read-only folders; what cannot be deleted stays for the next start."""
    if not folder.is_dir() or folder.is_symlink():
        folder.unlink(missing_ok=True)
        return
    for inner, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            os.chmod(inner, 0o700)  # noqa: PTH101 - a string, from walk
    shutil.rmtree(folder, ignore_errors=True)
