"""Makes a function's package: a folder as a zip that has the same bytes for the same files, or a zip as it is."""

import base64
import contextlib
import hashlib
import json
import secrets
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import click

from bridge.cli.failures import Misused

ZIPPED_MAX_BYTES: Final = 50 * 1024 * 1024
"""gettingstarted-limits.html, deployment package, zipped."""
_CHUNK_BYTES: Final = 3 * 64 * 1024
"""A multiple of three: base64 of the pieces is base64 of the whole."""
_MADE_AT: Final = (1980, 1, 1, 0, 0, 0)
"""The time of every entry: an unchanged folder has an unchanged CodeSha256."""
_HINT: Final = "path"


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A package that is ready to be sent."""

    file: IO[bytes]
    size: int
    """Bytes of the zip."""
    sha256: str
    """CodeSha256."""
    modules: tuple[str, ...]
    """Python modules at its top, for who looks for a handler."""
    tops: frozenset[str] = frozenset()
    """Names of all files and folders at its top, up to the first dot."""


@contextlib.contextmanager
def packed(path: Path) -> Iterator[Packed]:
    """Yield the package of a folder or a zip.

    Raises:
        click.BadParameter: neither, empty, or larger than Lambda takes.
        Misused: a file of the folder cannot be read.
    """
    try:
        with contextlib.ExitStack() as opened:
            if path.is_dir():
                file: IO[bytes] = opened.enter_context(tempfile.TemporaryFile(prefix="bridge-deploy-"))
                _zip_folder(path, file)
            else:
                file = opened.enter_context(path.open("rb"))
            yield _looked_at(path, file)
    except OSError as error:
        where = error.filename or path
        raise Misused(f"{where}: {(error.strerror or 'unreadable').lower()}") from error


def _looked_at(path: Path, file: IO[bytes]) -> Packed:
    if not zipfile.is_zipfile(file):
        raise click.BadParameter(
            f"{path} is neither a folder nor a zip; give the folder that holds the code", param_hint=_HINT
        )
    file.seek(0)
    digest, size = hashlib.sha256(), 0
    while piece := file.read(_CHUNK_BYTES):
        digest.update(piece)
        size += len(piece)
    if size > ZIPPED_MAX_BYTES:
        raise click.BadParameter(
            f"{path} is {size:,} bytes zipped; Lambda takes {ZIPPED_MAX_BYTES:,}: move what is large into a layer",
            param_hint=_HINT,
        )
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    modules = tuple(sorted(name.removesuffix(".py") for name in names if name.endswith(".py") and "/" not in name))
    tops = frozenset(name.split("/")[0].split(".")[0] for name in names)
    sha256 = base64.b64encode(digest.digest()).decode("ascii")
    return Packed(file=file, size=size, sha256=sha256, modules=modules, tops=tops)


def _zip_folder(folder: Path, target: IO[bytes]) -> None:
    from bridge.core.errors import ConfigError
    from bridge.registry.packages import FILES_MAX, UNZIPPED_MAX_BYTES, walk

    try:
        found = sorted((name, status) for name, status in walk(str(folder)) if status is not None)
    except ConfigError as error:
        raise click.BadParameter(str(error), param_hint=_HINT) from error
    files = [(name, status) for name, status in found if stat.S_ISREG(status.st_mode)]
    if not files:
        raise click.BadParameter(f"{folder} holds no files", param_hint=_HINT)
    size = sum(status.st_size for _, status in files)
    if size > UNZIPPED_MAX_BYTES or len(files) > FILES_MAX:
        raise click.BadParameter(
            f"{folder} holds {size:,} bytes in {len(files):,} files; Lambda takes {UNZIPPED_MAX_BYTES:,} bytes, "
            f"here in {FILES_MAX:,} files",
            param_hint=_HINT,
        )
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, status in files:
            entry = zipfile.ZipInfo(name, _MADE_AT)
            entry.external_attr = (stat.S_IFREG | (0o755 if status.st_mode & 0o111 else 0o644)) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            with (folder / name).open("rb") as source, archive.open(entry, "w") as file:
                while piece := source.read(_CHUNK_BYTES):
                    file.write(piece)


def request(members: Mapping[str, Any], package: Packed, *, within: str = "") -> tuple[int, Iterator[bytes]]:
    """Return the size and the pieces of a JSON body with the package as ZipFile, in the member `within` or at its top.

    The pieces read the file as they are asked for: 50 MB are never held.
    """
    place = secrets.token_hex(16)
    zip_file = {"ZipFile": place}
    whole = {**members, within: zip_file} if within else {**members, **zip_file}
    before, _, after = json.dumps(whole).partition(place)
    size = len(before) + 4 * ((package.size + 2) // 3) + len(after)

    def pieces() -> Iterator[bytes]:
        yield before.encode()
        package.file.seek(0)
        while piece := package.file.read(_CHUNK_BYTES):
            yield base64.b64encode(piece)
        yield after.encode()

    return size, pieces()


def counted(pieces: Iterator[bytes], show: Callable[[int], None]) -> Iterator[bytes]:
    """Yield the pieces, telling how many bytes have gone."""
    gone = 0
    for piece in pieces:
        yield piece
        gone += len(piece)
        show(gone)
