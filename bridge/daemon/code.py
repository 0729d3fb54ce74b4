"""Code of functions and layers that is not in a request: objects of S3 by the file's connection, one local folder."""

import asyncio
from pathlib import Path
from typing import Any, Final

from bridge.api.awslambda.errors import Refused, invalid
from bridge.api.awslambda.uploads import CodePlace
from bridge.aws.errors import AwsTroubleKind, call_errors, trouble
from bridge.config.connections import connections_in
from bridge.config.settings import Settings
from bridge.core.errors import ConfigError
from bridge.daemon.aws import AwsReach
from bridge.registry.packages import UNZIPPED_MAX_BYTES
from bridge.registry.snapshots import zip_folder
from bridge.registry.zips import TOO_LARGE

LOCAL_BUCKET: Final = "local"
"""S3Bucket of what is in `[api] code_folder`: S3Key is the path there."""
FETCH_MAX_S: Final = 300.0
"""A whole object, 250 MB at most."""
_CHUNK_BYTES: Final = 256 * 1024
_ANSWERED: Final = frozenset({AwsTroubleKind.NOT_FOUND, AwsTroubleKind.INVALID, AwsTroubleKind.UNKNOWN_OUTCOME})


class FileCode:
    """Fetches code as the file in force allows it; see `CodeSource`.

    Args:
        settings: later ones go through `configure`.
        aws: the connections.
    """

    def __init__(self, settings: Settings, *, aws: AwsReach) -> None:
        self._settings = settings
        self._aws = aws

    def configure(self, settings: Settings) -> None:
        """Take the places of a new file."""
        self._settings = settings

    async def fetch(self, place: CodePlace, *, region: str, target: Path) -> None:
        """Write what is there to `target`.

        Raises:
            Refused: in AWS's words, where AWS has some.
        """
        folder = self._settings.api.code_folder
        if folder is not None and place.bucket == LOCAL_BUCKET:
            await asyncio.to_thread(_copy, folder, place, target)
            return
        try:
            async with asyncio.timeout(FETCH_MAX_S):
                await self._download(place, region, target)
        except TimeoutError as error:
            raise _unavailable(f"no whole object within {FETCH_MAX_S:.0f} seconds") from error

    async def _download(self, place: CodePlace, region: str, target: Path) -> None:
        connection = self._aws.connection(self._connection(region))
        version = {"VersionId": place.version} if place.version else {}
        try:
            client = await self._aws.clients.client(connection, "s3")
            answer = await client.get_object(Bucket=place.bucket, Key=place.key, **version)
            async with answer["Body"] as body:
                await _save(body, target)
        except call_errors() as error:
            raise _refused(error, place) from error

    def _connection(self, region: str) -> str:
        """Return the name of the connection that S3 is reached by.

        Only one that the file has: nobody is to read by the daemon's own credentials what the file does not mean.
        """
        if named := self._settings.api.code_connection:
            return named
        found = connections_in(self._settings, region)
        if len(found) != 1:
            raise invalid(
                f"Code in S3 is not offered here: {len(found)} [connections.X] of type aws are in {region}; name the "
                "one that reads it in [api] code_connection, or give the code as ZipFile"
            )
        return found[0]


async def _save(body: Any, target: Path) -> None:
    size = 0
    with await asyncio.to_thread(target.open, "wb") as file:
        while chunk := await body.read(_CHUNK_BYTES):
            size += len(chunk)
            if size > UNZIPPED_MAX_BYTES:
                raise invalid(TOO_LARGE)
            await asyncio.to_thread(file.write, chunk)


def _refused(error: Exception, place: CodePlace) -> Refused:
    found = trouble(error)
    text = getattr(error, "response", {}).get("Error", {}).get("Message", "") or found.message
    said = f"S3 Error Code: {found.code}. S3 Error Message: {text}"
    if found.kind is AwsTroubleKind.DENIED:
        return Refused(
            "AccessDeniedException",
            "Your access has been denied by S3, please make sure your request credentials have permission to GetObject "
            f"for {place.bucket}/{place.key}. {said}",
            status=403,
            kind="",
        )
    if found.status and found.kind in _ANSWERED:
        return invalid(f"Error occurred while GetObject. {said}")
    return _unavailable(found.message)


def _unavailable(reason: str) -> Refused:
    return Refused("ServiceException", f"S3 cannot be asked now: {reason}", status=503, kind="Service")


def _copy(root: Path, place: CodePlace, target: Path) -> None:
    """Write a zip below the folder, or one made of a folder below it; blocking."""
    try:
        base = root.resolve(strict=True)
        path = (base / place.key.lstrip("/")).resolve(strict=True)
        if not path.is_relative_to(base) or place.version:
            raise FileNotFoundError
        if path.is_dir():
            zip_folder(path, target)
            return
        if path.stat().st_size > UNZIPPED_MAX_BYTES:
            raise invalid(TOO_LARGE)
        target.write_bytes(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        code, text = "NoSuchKey", "The specified key does not exist."
        raise invalid(f"Error occurred while GetObject. S3 Error Code: {code}. S3 Error Message: {text}") from error
    except ConfigError as error:
        raise invalid(f"{place.key} cannot be a package: {error}") from error
    except PermissionError as error:
        raise invalid(f"{place.key} cannot be read by the daemon: {error.strerror}") from error
