"""What every scheme shares: the verdict, the time window, constant-time comparison over all secrets."""

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from hmac import compare_digest
from typing import Any, ClassVar, Final, NamedTuple

import orjson

from bridge.core import limits
from bridge.core.errors import ConfigError
from bridge.events.http import HttpRequest
from bridge.events.responses import HttpResponse

DELIVERY_ID_MAX_CHARS: Final = 200
"""A longer delivery id is kept as its SHA-256, so that the de-duplication index stays bounded."""
SIGNATURES_MAX: Final = 16
"""Signatures looked at in one header; rotation needs two or three."""
_TIMESTAMP = re.compile(rb"[0-9]{1,12}\Z")

Now = Callable[[], float]
"""The system's wall clock with its steps, epoch seconds: `Clock.stepped`."""


class Verdict(NamedTuple):
    """What a verifier found."""

    ok: bool
    delivery_id: str = ""
    """The sender's id of this delivery, empty when it gave none."""
    reason: str = ""
    """Why not, in a few words that tell an attacker nothing."""
    response: HttpResponse | None = None
    """Answer this instead of storing anything (a handshake of the vendor's)."""


class Refused(Exception):
    """Raised within a scheme; its text is the verdict's reason."""


class Unavailable(Exception):
    """What a scheme needs cannot be had now: the sender should come again. The text is for it."""


class Verifier(ABC):
    """One scheme with its secrets. `verify` never blocks and reads the raw body before anything parses it."""

    challenge: ClassVar[bytes] = b"Signature"
    """Value of `www-authenticate` in a 401."""
    hidden_headers: ClassVar[frozenset[str]] = frozenset()
    """Headers that hold the secret itself and are therefore kept out of the event."""
    prepares: ClassVar[bool] = False
    """It needs something from elsewhere: `prepare` is awaited before each `verify`."""

    async def prepare(self, request: HttpRequest) -> None:
        """Have what `check` needs for this request; what is here is not asked for again.

        Raises:
            Unavailable: it cannot be had now.
        """
        del request

    def verify(self, request: HttpRequest) -> Verdict:
        """Return the verdict; takes the same time whichever of several secrets fails."""
        try:
            return self.check(request)
        except Refused as refused:
            return Verdict(ok=False, reason=str(refused))

    @abstractmethod
    def check(self, request: HttpRequest) -> Verdict:
        """Return a good verdict.

        Raises:
            Refused: the request is not from a holder of a secret, or not from now.
        """


def header(request: HttpRequest, name: bytes) -> bytes:
    """Return a header's value, empty when it is missing.

    Raises:
        Refused: it is there more than once, so that we and a proxy before us could read different ones.
    """
    found: bytes | None = None
    for key, value in request.headers:
        if key == name:
            if found is not None:
                raise Refused(f"header {name.decode('latin-1')} is given more than once")
            found = value
    return found or b""


def needed(request: HttpRequest, name: bytes) -> bytes:
    """Return a header's value.

    Raises:
        Refused: it is missing, empty, or there more than once.
    """
    value = header(request, name)
    if not value:
        raise Refused(f"header {name.decode('latin-1')} is missing")
    return value


def matches(expected: Iterable[bytes], given: Sequence[bytes]) -> bool:
    """Say whether any pair is equal; every pair is compared, each in constant time."""
    found = False
    for ours in expected:
        for theirs in given[:SIGNATURES_MAX]:
            found |= compare_digest(ours, theirs)
    return found


def check_window(timestamp: bytes, *, now: Now, window_s: float) -> None:
    """Accept a time in epoch seconds that is within the window, past or future.

    Raises:
        Refused: it is no such number, or too far from now.
    """
    if _TIMESTAMP.match(timestamp) is None:
        raise Refused("the timestamp is not in epoch seconds")
    if abs(int(now()) - int(timestamp)) > window_s:
        raise Refused(f"the timestamp is more than {window_s:g} s from now")


def delivery(value: bytes | str) -> str:
    """Return a delivery id fit to be kept."""
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    if len(text) <= DELIVERY_ID_MAX_CHARS and text.isprintable():
        return text
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def json_object(body: bytes) -> dict[str, Any]:
    """Return the body if it is a JSON object, else an empty one: what we cannot read is not ours to judge."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def text_field(value: dict[str, Any], name: str) -> str:
    """Return a member that is text, else an empty one."""
    found = value.get(name)
    return found if isinstance(found, str) else ""


def keys_of(secrets: Sequence[bytes | str], *, scheme: str) -> tuple[bytes, ...]:
    """Return the secrets as bytes.

    Raises:
        ConfigError: there is none, or one is empty.
    """
    keys = tuple(secret.encode("utf-8") if isinstance(secret, str) else secret for secret in secrets)
    if not keys:
        raise ConfigError(f"scheme {scheme} needs at least one secret")
    if not all(keys):
        raise ConfigError(f"a secret of scheme {scheme} is empty")
    return keys


def window_of(window_s: float) -> float:
    """Return the window.

    Raises:
        ConfigError: not between 1 and 3,600 seconds.
    """
    if not 1 <= window_s <= 3600:
        raise ConfigError(f"window_s is {window_s}; it must be between 1 and 3600")
    return window_s


WINDOW_DEFAULT_S: Final = float(limits.SIGNATURE_WINDOW_S)
