"""Schemes for everybody else: a described HMAC, HTTP basic, a bearer token, and none at all."""

from base64 import b64encode
from collections.abc import Sequence
from hmac import digest
from typing import ClassVar, Final

from bridge.core.errors import ConfigError
from bridge.events.http import HttpRequest
from bridge.sources.push.signatures.base import (
    WINDOW_DEFAULT_S,
    Now,
    Refused,
    Verdict,
    Verifier,
    check_window,
    delivery,
    header,
    keys_of,
    matches,
    needed,
    window_of,
)

ALGORITHMS: Final = ("sha1", "sha256", "sha512")
ENCODINGS: Final = ("hex", "base64")


def _name(option: str, value: str) -> bytes:
    if not value.isascii() or not value.replace("-", "").replace("_", "").isalnum():
        raise ConfigError(f"{option} is {value!r}; it must be the name of a header")
    return value.lower().encode("ascii")


class Hmac(Verifier):
    """An HMAC in a header, described by options.

    Args:
        secrets: used as they are, in UTF-8.
        now: the stepped wall clock.
        header: name of the signature's header.
        algorithm: `sha1`, `sha256` or `sha512`.
        encoding: `hex` (lower case) or `base64`.
        prefix: what stands before the signature, e.g. `sha256=`.
        timestamp_header: name of the header with epoch seconds; empty: no time is checked.
        template: what is signed, with `{body}` and, if there is a time, `{timestamp}`; default `{body}` or
            `{timestamp}.{body}`.
        delivery_header: name of the header with the delivery id; empty: no de-duplication.
        window_s: 1..3600
    """

    def __init__(
        self,
        *,
        secrets: Sequence[bytes | str],
        now: Now,
        header: str = "",
        algorithm: str = "sha256",
        encoding: str = "hex",
        prefix: str = "",
        timestamp_header: str = "",
        template: str = "",
        delivery_header: str = "",
        window_s: float = WINDOW_DEFAULT_S,
    ) -> None:
        if algorithm not in ALGORITHMS:
            raise ConfigError(f"algorithm is {algorithm!r}; it must be one of {', '.join(ALGORITHMS)}")
        if encoding not in ENCODINGS:
            raise ConfigError(f"encoding is {encoding!r}; it must be one of {', '.join(ENCODINGS)}")
        self._keys = keys_of(secrets, scheme="hmac")
        self._header = _name("header", header)
        self._algorithm = algorithm
        self._is_hex = encoding == "hex"
        self._prefix = prefix.encode("utf-8")
        self._timestamp_header = _name("timestamp_header", timestamp_header) if timestamp_header else b""
        self._delivery_header = _name("delivery_header", delivery_header) if delivery_header else b""
        self._before, self._after = _template(template, timed=bool(timestamp_header))
        self._now = now
        self._window_s = window_of(window_s)

    def check(self, request: HttpRequest) -> Verdict:
        """See `Verifier.check`."""
        given = needed(request, self._header)
        timestamp = needed(request, self._timestamp_header) if self._timestamp_header else b""
        before, after = (part.replace(b"{timestamp}", timestamp) for part in (self._before, self._after))
        signed = before + request.body + after
        expected = [self._prefix + self._encode(digest(key, signed, self._algorithm)) for key in self._keys]
        if not matches(expected, [given]):
            raise Refused("the signature does not match")
        if self._timestamp_header:
            check_window(timestamp, now=self._now, window_s=self._window_s)
        delivery_id = header(request, self._delivery_header) if self._delivery_header else b""
        return Verdict(ok=True, delivery_id=delivery(delivery_id))

    def _encode(self, raw: bytes) -> bytes:
        return raw.hex().encode("ascii") if self._is_hex else b64encode(raw)


def _template(template: str, *, timed: bool) -> tuple[bytes, bytes]:
    """Return what stands before and after the body."""
    template = template or ("{timestamp}.{body}" if timed else "{body}")
    before, found, after = template.encode("utf-8").partition(b"{body}")
    if not found or b"{body}" in after:
        raise ConfigError("template must hold {body} once")
    if timed != (b"{timestamp}" in before + after):
        raise ConfigError("template must hold {timestamp} if, and only if, timestamp_header is set")
    return before, after


class _Credential(Verifier):
    """The secret itself in `Authorization`: compared whole, in constant time, and kept out of the event."""

    hidden_headers: ClassVar[frozenset[str]] = frozenset({"authorization"})
    word: ClassVar[bytes]

    def __init__(self, *, secrets: Sequence[bytes | str], now: Now, delivery_header: str = "") -> None:  # noqa: ARG002
        self._expected = [self.encode(key) for key in keys_of(secrets, scheme=self.word.decode("ascii"))]
        self._delivery_header = _name("delivery_header", delivery_header) if delivery_header else b""

    def encode(self, key: bytes) -> bytes:
        """Return the credential as it comes in the header."""
        return key

    def check(self, request: HttpRequest) -> Verdict:
        """See `Verifier.check`."""
        word, _, credential = needed(request, b"authorization").partition(b" ")
        found = matches(self._expected, [credential.strip()])
        if word.lower() != self.word or not found:
            raise Refused("the credential does not match")
        delivery_id = header(request, self._delivery_header) if self._delivery_header else b""
        return Verdict(ok=True, delivery_id=delivery(delivery_id))


class Basic(_Credential):
    """HTTP basic (RFC 7617); a secret is `user:password`."""

    challenge = b'Basic realm="bridge", charset="UTF-8"'
    word = b"basic"

    def encode(self, key: bytes) -> bytes:
        """Return the credential as it comes in the header."""
        if b":" not in key:
            raise ConfigError("a secret of scheme basic must be user:password")
        return b64encode(key)


class Bearer(_Credential):
    """A bearer token (RFC 6750)."""

    challenge = b"Bearer"
    word = b"bearer"


class Anyone(Verifier):
    """`none`: whoever can reach the route may post; must be written to be used."""

    def __init__(self, *, secrets: Sequence[bytes | str], now: Now, delivery_header: str = "") -> None:  # noqa: ARG002
        if secrets:
            raise ConfigError("scheme none takes no secrets")
        self._delivery_header = _name("delivery_header", delivery_header) if delivery_header else b""

    def check(self, request: HttpRequest) -> Verdict:
        """See `Verifier.check`."""
        if not self._delivery_header:
            return _ANYONE
        return Verdict(ok=True, delivery_id=delivery(header(request, self._delivery_header)))


_ANYONE = Verdict(ok=True)
