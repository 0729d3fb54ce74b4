"""Reads a zip of a function: what is in it, and that none of it reaches outside its folder or beyond its limits.

Nothing is written here, and nothing in an archive is believed: sizes are counted while reading, and what two readers
could take for two different things is refused. Only what a function's package needs is read: files and folders,
stored or deflated.
"""

import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import IO, Final, NamedTuple

from bridge.core.errors import BridgeError
from bridge.registry.packages import FILES_MAX, FOLDERS_DEEP_MAX, UNZIPPED_MAX_BYTES

ZIPPED_MAX_BYTES: Final = 52_428_800
"""gettingstarted-limits.html: 50 MB."""
NAME_MAX_BYTES: Final = 255
"""Of one part of a path: what file systems hold."""
PATH_MAX_BYTES: Final = 2048
CHUNK_BYTES: Final = 256 * 1024
_LOCAL: Final = struct.Struct("<4s5H3I2H")
_ENTRY_SIGNATURE: Final = re.compile(rb"PK\x01\x02")
_METHODS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ENCRYPTED: Final = 0x1 | 0x40
_KINDS: Final = frozenset({0, stat.S_IFREG, stat.S_IFDIR})
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\\]")

UNREADABLE: Final = "Could not unzip uploaded file. Please check your file, then try to upload again."
TOO_LARGE: Final = f"Unzipped size must be smaller than {UNZIPPED_MAX_BYTES} bytes"
ZIPPED_TOO_LARGE: Final = f"Zipped size must be smaller than {ZIPPED_MAX_BYTES} bytes"
EMPTY: Final = "Uploaded file must be a non-empty zip"


class ZipRefused(BridgeError):
    """The archive is no package; its text is AWS's, `reason` says more to whoever looks for the mistake."""

    def __init__(self, text: str, reason: str = "") -> None:
        super().__init__(text)
        self.reason = reason


class Piece(NamedTuple):
    """A part of one file, in order; an empty file has one empty piece."""

    name: str
    """Relative, `/` between its parts."""
    is_executable: bool
    data: bytes
    is_first: bool


def check_size(size: int) -> None:
    """Refuse a zip of more than 50 MB: of a request, not of S3 (gettingstarted-limits.html).

    Raises:
        ZipRefused: it is larger.
    """
    if size > ZIPPED_MAX_BYTES:
        raise ZipRefused(ZIPPED_TOO_LARGE)


def read_zip(file: IO[bytes], *, limit_bytes: int = UNZIPPED_MAX_BYTES) -> Iterator[Piece]:
    """Yield the content of every file of an archive, checked as a whole before the first piece.

    Args:
        file: seekable; of at most 50 MB, which the caller has checked.
        limit_bytes: what all files may have together.

    Raises:
        ZipRefused: not a zip, damaged, encrypted, too large, or it holds what a package does not have: names that
            lead outside or that two entries share, links, devices, entries over one another.
    """
    try:
        _check_count(file)
        with zipfile.ZipFile(file) as archive:
            entries = _checked(file, archive)
            left = limit_bytes
            for entry in entries:
                for piece in _pieces(archive, entry):
                    left -= len(piece.data)
                    if left < 0:
                        raise ZipRefused(TOO_LARGE, entry.filename)
                    yield piece
    # What zipfile raises for a damaged archive is documented nowhere: these are what fuzzing it has found.
    except (zipfile.BadZipFile, zlib.error, ValueError, struct.error, EOFError, OSError, RuntimeError, LookupError,
            OverflowError, AttributeError) as error:  # fmt: skip
        raise ZipRefused(UNREADABLE, f"{type(error).__name__}: {error}") from error


def _pieces(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[Piece]:
    executable = bool(entry.external_attr >> 16 & 0o111)
    size = 0
    with archive.open(entry) as content:
        while data := content.read(CHUNK_BYTES):
            yield Piece(entry.filename, executable, data, is_first=size == 0)
            size += len(data)
    if size != entry.file_size:
        raise _bad(f"{entry.filename}: {size} bytes where {entry.file_size} are announced")
    if size == 0:
        yield Piece(entry.filename, executable, b"", is_first=True)


def _check_count(file: IO[bytes]) -> None:
    """Refuse what has too many entries before zipfile makes an object of each, whatever its last record says."""
    file.seek(0)
    count = 0
    tail = b""
    while block := file.read(CHUNK_BYTES * 4):
        count += sum(1 for _ in _ENTRY_SIGNATURE.finditer(tail + block))
        tail = block[-3:]
        if count > FILES_MAX * 2:
            raise _bad(f"more than {FILES_MAX} files")
    file.seek(0)


def _checked(file: IO[bytes], archive: zipfile.ZipFile) -> Sequence[zipfile.ZipInfo]:
    """Return the entries that are files, in the order they are stored."""
    found = archive.infolist()
    if len(found) > FILES_MAX:
        raise _bad(f"more than {FILES_MAX} files")
    files: dict[str, zipfile.ZipInfo] = {}
    folders: set[str] = set()
    for entry in found:
        name = _checked_name(entry)
        _check_kind(entry, is_folder=entry.is_dir())
        if entry.is_dir():
            folders.add(name)
            if entry.file_size:
                raise _bad(f"{name}: a folder with content")
        elif name in files:
            raise _bad(f"{name}: twice")
        else:
            files[name] = entry
        folders.update(_above(name))
    if both := next((name for name in files if name in folders), ""):
        raise _bad(f"{both}: a file and a folder")
    if not files:
        raise ZipRefused(EMPTY)
    if sum(entry.file_size for entry in files.values()) > UNZIPPED_MAX_BYTES:
        raise ZipRefused(TOO_LARGE)
    _check_overlaps(file, found, end=archive.start_dir)
    return sorted(files.values(), key=lambda entry: entry.header_offset)


def _checked_name(entry: zipfile.ZipInfo) -> str:
    written = entry.orig_filename
    if _CONTROL.search(written) or entry.filename != written:
        raise _bad(f"{written!r}: a character that no name has")
    name = written.removesuffix("/")
    parts = name.split("/")
    if not all(parts) or "." in parts or ".." in parts or ":" in parts[0]:
        raise _bad(f"{written!r}: leads elsewhere")
    encoded = [part.encode() for part in parts]
    if max(map(len, encoded)) > NAME_MAX_BYTES or len(name.encode()) > PATH_MAX_BYTES:
        raise _bad(f"{written[:100]!r}…: too long")
    if len(parts) > FOLDERS_DEEP_MAX:
        raise _bad(f"{written[:100]!r}: more than {FOLDERS_DEEP_MAX} folders deep")
    return name


def _check_kind(entry: zipfile.ZipInfo, *, is_folder: bool) -> None:
    if entry.flag_bits & _ENCRYPTED:
        raise _bad(f"{entry.filename}: encrypted")
    if entry.compress_type not in _METHODS:
        raise _bad(f"{entry.filename}: compressed by method {entry.compress_type}; stored and deflated are read")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in _KINDS or (kind == stat.S_IFDIR) > is_folder:
        raise _bad(f"{entry.filename}: neither file nor folder")


def _above(name: str) -> Iterator[str]:
    while name := name.rpartition("/")[0]:
        yield name


def _check_overlaps(file: IO[bytes], entries: Sequence[zipfile.ZipInfo], *, end: int) -> None:
    """Refuse entries that share bytes (bamsoftware.com/hacks/zipbomb): one kernel would count for many files."""
    reached = 0
    for entry in sorted(entries, key=lambda each: each.header_offset):
        if entry.header_offset < reached:
            raise _bad(f"{entry.filename}: begins within another")
        file.seek(entry.header_offset)
        fields = _LOCAL.unpack(file.read(_LOCAL.size))
        reached = entry.header_offset + _LOCAL.size + fields[9] + fields[10] + entry.compress_size
        if reached > end:
            raise _bad(f"{entry.filename}: ends within the directory")


def _bad(reason: str) -> ZipRefused:
    return ZipRefused(UNREADABLE, reason)
