"""Takes requests that carry a package: to a temporary file, two at once, decoded off the loop, one after the other."""

import asyncio
import contextlib
import hashlib
import mmap
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import orjson
import pybase64

from bridge.api.awslambda.errors import Refused, invalid, violated
from bridge.api.http import Request, TooLarge
from bridge.registry.zips import ZipRefused, check_size

UPLOAD_MAX_BYTES: Final = 70_167_211
"""Largest request of CreateFunction and UpdateFunctionCode [L]."""
UPLOADS_MAX: Final = 2
"""Requests of this kind at once."""
DECODED_CHARS: Final = 4 * 1024 * 1024
"""Characters of base64 that are decoded at a time, a multiple of four: the zip is never in memory as a whole."""
LARGE_CHARS: Final = 64 * 1024
"""A ZipFile of more characters is taken out of the request before that is parsed."""
_KEY: Final = b'"ZipFile"'
_ELSEWHERE: Final = b"taken out, and no base64"
_NOT_OFFERED: Final = ("ImageUri", "SourceKMSKeyArn")
_BUCKET: Final = re.compile(r"[0-9A-Za-z.\-_]{3,63}(?<!\.)\Z")
_BUCKET_PATTERN: Final = r"[0-9A-Za-z\.\-_]*(?<!\.)"
_KEY_MAX_CHARS: Final = 1024


class CodePlace(NamedTuple):
    """Where a zip is, if not in the request."""

    bucket: str
    key: str
    version: str
    """Empty: the latest."""


class CodeSource(Protocol):
    """Fetches zips from elsewhere."""

    async def fetch(self, place: CodePlace, *, region: str, target: Path) -> None:
        """Write what is there to `target`, whole; `region` is the caller's.

        Raises:
            Refused: it is not there, may not be read, or nothing here reads it, in AWS's words.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A request that was received whole."""

    body_hash: str
    """SHA-256 of its body, hexadecimal: what a signature covers."""
    file: Path


class Uploads:
    """Receives packages.

    Args:
        temporary: returns a new path for a temporary file; what is left there by a crash is thrown away at a start.
        source: fetches what is not in the request; None: it has to be.
    """

    def __init__(self, temporary: Callable[[], Path], source: CodeSource | None = None) -> None:
        self._temporary = temporary
        self._source = source
        self._turns = asyncio.Semaphore(UPLOADS_MAX)
        self._decoding = asyncio.Lock()
        """The file of a request that is decoded is in memory, mapped."""

    @contextlib.asynccontextmanager
    async def receive(self, request: Request, operation: str) -> AsyncIterator[Upload]:
        """Receive a request's body; the file is gone when the block ends.

        Raises:
            Refused: 413, larger than AWS takes.
            ClientGone: the client left first.
        """
        async with self._turns:
            path = self._temporary()
            digest = hashlib.sha256()
            try:
                with await asyncio.to_thread(path.open, "xb") as file:
                    async for piece in request.pieces(UPLOAD_MAX_BYTES):
                        digest.update(piece)
                        await asyncio.to_thread(file.write, piece)
                yield Upload(body_hash=digest.hexdigest(), file=path)
            except TooLarge as error:
                raise Refused(
                    "RequestEntityTooLargeException",
                    f"Request must be smaller than {UPLOAD_MAX_BYTES} bytes for the {operation} operation",
                    status=413,
                ) from error
            finally:
                await asyncio.to_thread(path.unlink, missing_ok=True)

    @contextlib.asynccontextmanager
    async def decode(
        self, upload: Upload, *, region: str, member: str = ""
    ) -> AsyncIterator[tuple[dict[str, Any], Path]]:
        """Return a request's members without its zip, and the file that the zip is in while the block lasts.

        Args:
            upload: the request.
            region: the caller's.
            member: the one that holds ZipFile or S3Bucket and S3Key (`Code`); empty: they are among the others.

        Raises:
            Refused: no JSON object, no zip, one that is not base64 or too large, or that cannot be fetched.
        """
        path = self._temporary()
        try:
            async with self._decoding:
                members, place = await asyncio.to_thread(_decode, upload.file, path, member)
            if place is not None:
                if self._source is None:
                    raise invalid("S3Bucket is not offered: give the code as ZipFile")
                await self._source.fetch(place, region=region, target=path)
            yield members, path
        finally:
            await asyncio.to_thread(path.unlink, missing_ok=True)


def _decode(source: Path, target: Path, member: str) -> tuple[dict[str, Any], CodePlace | None]:
    try:
        with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _split(data, target, member)
    except ValueError as error:  # no JSON, or an empty file, which cannot be mapped
        raise Refused("SerializationException", "Could not parse request body into json") from error


def _split(data: mmap.mmap, target: Path, member: str) -> tuple[dict[str, Any], CodePlace | None]:
    """Return a request's members without the zip, which is in `target` then, or where the zip is. Raises ValueError."""
    start, end = _large_zip(data)
    members = _members(data[:start] + _ELSEWHERE + data[end:] if end else data)
    code = _code(members, member)
    if end and code.get("ZipFile") != _ELSEWHERE.decode():  # another member of that name
        start, end, members = 0, 0, _members(data)
        code = _code(members, member)
    for name in _NOT_OFFERED:
        if code.get(name):
            raise invalid(f"{name} is not offered: give the code as a zip, in the request or in S3")
    written, place = code.pop("ZipFile", None), _place(code)
    if written and place is not None:
        raise invalid("Please do not provide other FunctionCode parameters when providing a ZipFile.")
    if place is not None:
        return members, place
    if not written:
        raise invalid("Please provide a source for function code.")
    if end:
        _write_decoded(data, start, end, target)
    elif isinstance(written, str):
        text = written.encode("utf-8", "replace")
        _write_decoded(text, 0, len(text), target)
    else:
        raise Refused("SerializationException", "ZipFile is not base64")
    return members, None


def _large_zip(data: mmap.mmap) -> tuple[int, int]:
    """Return where the text of a large ZipFile is: not to be parsed with the rest, which would hold it twice.

    (0, 0): there is none. A quoted name before a colon is a member in any JSON; a quote ends a text without escapes.
    """
    key = data.find(_KEY)
    start = data.find(b'"', key + len(_KEY)) + 1 if key >= 0 else 0
    if not start or data[key + len(_KEY) : start - 1].strip() != b":":
        return 0, 0
    end = data.find(b'"', start)
    return (start, end) if end - start >= LARGE_CHARS and data.find(b"\\", start, end) < 0 else (0, 0)


def _code(members: dict[str, Any], member: str) -> dict[str, Any]:
    code = members.get(member) if member else members
    if isinstance(code, dict):
        return code
    if member and code is None:
        raise violated(None, member.lower(), "not be null")
    raise Refused("SerializationException", f"{member} can not be converted: an object is expected")


def _write_decoded(data: mmap.mmap | bytes, start: int, end: int, target: Path) -> None:
    """Write what base64 within `data` stands for. Raises Refused: it is none, or stands for more than 50 MB."""
    padding = 2 if data[end - 2 : end] == b"==" else 1 if data[end - 1 : end] == b"=" else 0
    try:
        if data.find(b"=", start, end - padding) >= 0:  # a piece may end so, the whole not
            raise ValueError
        check_size((end - start) // 4 * 3 - padding)
        with target.open("wb") as file:
            for first in range(start, end, DECODED_CHARS):
                file.write(pybase64.b64decode(data[first : min(first + DECODED_CHARS, end)], validate=True))
    except ZipRefused as error:
        raise Refused("RequestEntityTooLargeException", str(error), status=413) from error
    except ValueError as error:
        raise Refused("SerializationException", "ZipFile is not base64") from error


def _place(code: dict[str, Any]) -> CodePlace | None:
    """Return where S3Bucket and S3Key say that the zip is; None: they are not given."""
    found = [code.get(name) or "" for name in ("S3Bucket", "S3Key", "S3ObjectVersion")]
    for value in found:
        if not isinstance(value, str):
            raise Refused("SerializationException", "S3Bucket, S3Key and S3ObjectVersion must be Strings")
    bucket, key, version = found
    if not bucket or not key:
        if bucket or key:
            raise invalid("Please provide both S3Bucket and S3Key.")
        return None
    if not _BUCKET.match(bucket):
        raise violated(bucket, "code.s3Bucket", f"satisfy regular expression pattern: {_BUCKET_PATTERN}")
    for name, value in (("s3Key", key), ("s3ObjectVersion", version)):
        if len(value) > _KEY_MAX_CHARS:
            raise violated(value, f"code.{name}", f"have length less than or equal to {_KEY_MAX_CHARS}")
    if code.get("S3ObjectStorageMode") not in (None, "COPY"):
        raise invalid("S3ObjectStorageMode REFERENCE is not offered: the code is copied")
    return CodePlace(bucket, key, version)


def _members(data: mmap.mmap | bytes) -> dict[str, Any]:
    with memoryview(data) as view:
        found = orjson.loads(view)
    if not isinstance(found, dict):
        raise Refused("SerializationException", "Could not parse request body into json: an object is expected")
    return found
