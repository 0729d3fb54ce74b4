"""Takes requests that carry a package: to a temporary file, at most two at once, decoded off the loop."""

import asyncio
import contextlib
import hashlib
import mmap
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import pybase64

from bridge.api.awslambda.errors import Refused, invalid
from bridge.api.http import Request, TooLarge

UPLOAD_MAX_BYTES: Final = 70_167_211
"""Largest request of CreateFunction and UpdateFunctionCode [L]."""
UPLOADS_MAX: Final = 2
"""Requests of this kind at once: each needs about three times its size while it is decoded."""
_ELSEWHERE: Final = ("S3Bucket", "S3Key", "S3ObjectVersion", "ImageUri", "S3ObjectStorageMode", "SourceKMSKeyArn")


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
    """

    def __init__(self, temporary: Callable[[], Path]) -> None:
        self._temporary = temporary
        self._turns = asyncio.Semaphore(UPLOADS_MAX)

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
    async def decode(self, upload: Upload, *, member: str = "") -> AsyncIterator[tuple[dict[str, Any], Path]]:
        """Return a request's members without its zip, and the file that the zip is in while the block lasts.

        Args:
            upload: the request.
            member: the one that holds ZipFile (`Code`); empty: it is among the others.

        Raises:
            Refused: no JSON object, no zip, or one that is not base64.
        """
        path = self._temporary()
        try:
            members = await asyncio.to_thread(_decode, upload.file, path, member)
            yield members, path
        finally:
            await asyncio.to_thread(path.unlink, missing_ok=True)


def _decode(source: Path, target: Path, member: str) -> dict[str, Any]:
    members = _members(source)
    code = members.get(member) if member else members
    if not isinstance(code, dict):
        if member and code is None:
            text = f"1 validation error detected: Value null at '{member.lower()}' failed to satisfy constraint: "
            raise Refused("ValidationException", f"{text}Member must not be null", kind="")
        raise Refused("SerializationException", f"{member} can not be converted: an object is expected")
    for name in _ELSEWHERE:
        if code.get(name):
            raise invalid(f"{name} is not offered: give the code as ZipFile")
    data = code.pop("ZipFile", None)
    if not data:
        raise invalid("Please provide a source for function code.")
    try:
        target.write_bytes(pybase64.b64decode(data, validate=True))
    except (ValueError, TypeError) as error:
        raise Refused("SerializationException", "ZipFile is not base64") from error
    return members


def _members(source: Path) -> dict[str, Any]:
    try:
        with (
            source.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
            memoryview(data) as view,
        ):
            found = orjson.loads(view)
    except ValueError as error:  # no JSON, or an empty file, which cannot be mapped
        raise Refused("SerializationException", "Could not parse request body into json") from error
    if not isinstance(found, dict):
        raise Refused("SerializationException", "Could not parse request body into json: an object is expected")
    return found
