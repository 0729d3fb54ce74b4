"""Code.Location and Content.Location: links to packages that work for ten minutes, for whoever has them."""

import hmac
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from bridge.api.http import Answer, FileAnswer, HttpError, Request
from bridge.core.errors import StoreCorrupt
from bridge.core.ports import Clock

VALID_S: Final = 600
"""As AWS's presigned links (API_GetFunction: valid for 10 minutes)."""
PREFIX: Final = "/content/"
_PATH: Final = re.compile(rf"{PREFIX}(?P<key>[0-9a-f]{{64}})\.zip\Z")
_SECONDS: Final = re.compile(r"[0-9]{1,12}\Z", re.ASCII)


class ContentLinks:
    """Makes links and answers them: no signature of a caller is asked for, the link's own says enough.

    Args:
        secret: what links are signed with: those of another secret are refused.
        clock: tells when they end.
    """

    def __init__(self, secret: str, clock: Clock) -> None:
        self._key = hmac.digest(secret.encode(), b"links to packages", "sha256")
        self._clock = clock

    def to(self, package: str, request: Request) -> str:
        """Return the link to a package, by its key, at the address that a request came to."""
        host = request.headers["host"][0].strip()
        # Behind a proxy that ends TLS only its own word says how the client came; it concerns that client alone.
        proto = request.headers.get("x-forwarded-proto", [""])[0].strip().lower()
        scheme = "https" if "https" in (request.scope.get("scheme", ""), proto) else "http"
        ends = int(self._clock.time()) + VALID_S
        query = urlencode({"Expires": ends, "Signature": self._signature(package, ends)})
        return f"{scheme}://{host}{PREFIX}{package}.zip?{query}"

    def answer(self, request: Request, file_of: Callable[[str], Path]) -> Answer:
        """Answer a request for a package; `file_of` returns its zip, or raises StoreCorrupt.

        Raises:
            HttpError: not one of our links, one that has ended, or its package is gone.
        """
        if request.method not in ("GET", "HEAD"):
            raise HttpError(405, "a link is for GET", headers={"allow": "GET, HEAD"})
        found, query = _PATH.match(request.path), dict(request.query())
        ends = query.get("Expires", "")
        if found is None or not _SECONDS.match(ends):
            raise HttpError(403, "this is no link of this daemon")
        expected, given = self._signature(found["key"], int(ends)), query.get("Signature", "")
        if not hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace")):
            raise HttpError(403, "this is no link of this daemon")
        if self._clock.time() > int(ends):
            raise HttpError(403, f"the link has ended: links are valid for {VALID_S} seconds")
        try:
            return FileAnswer(file_of(found["key"]), content_type="application/zip")
        except (StoreCorrupt, OSError) as error:
            raise HttpError(404, "the package is gone") from error

    def _signature(self, package: str, ends: int) -> str:
        return hmac.digest(self._key, f"{package} {ends}".encode(), "sha256").hex()
