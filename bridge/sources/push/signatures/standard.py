"""Standard Webhooks: HMAC-SHA256 (v1) and ed25519 (v1a) over `id.time.body`, several signatures in one header.

github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from hmac import digest
from typing import Final

from bridge.core.errors import ConfigError
from bridge.events.http import HttpRequest
from bridge.sources.push.signatures.base import (
    SIGNATURES_MAX,
    WINDOW_DEFAULT_S,
    Now,
    Refused,
    Verdict,
    Verifier,
    check_window,
    delivery,
    keys_of,
    matches,
    needed,
    window_of,
)

SECRET_MIN_BYTES: Final = 24
SECRET_MAX_BYTES: Final = 64
"""The specification's range for a symmetric secret."""

_CheckEd25519 = Callable[[bytes, bytes], bool]


class StandardWebhooks(Verifier):
    """Secrets: `whsec_BASE64` (symmetric, the prefix may be left out) or `whpk_BASE64` (the sender's public key)."""

    def __init__(self, *, secrets: Sequence[bytes | str], now: Now, window_s: float = WINDOW_DEFAULT_S) -> None:
        self._keys: list[bytes] = []
        self._public: list[_CheckEd25519] = []
        for secret in keys_of(secrets, scheme="standard-webhooks"):
            if secret.startswith(b"whpk_"):
                self._public.append(_ed25519(_decode(secret.removeprefix(b"whpk_"))))
            else:
                self._keys.append(_symmetric(secret))
        self._now = now
        self._window_s = window_of(window_s)

    def check(self, request: HttpRequest) -> Verdict:
        """See `Verifier.check`."""
        delivery_id = needed(request, b"webhook-id")
        timestamp = needed(request, b"webhook-timestamp")
        listed = needed(request, b"webhook-signature").split()[:SIGNATURES_MAX]
        signed = b"%b.%b.%b" % (delivery_id, timestamp, request.body)
        given = [item[3:] for item in listed if item.startswith(b"v1,")]
        found = matches([b64encode(digest(key, signed, "sha256")) for key in self._keys], given)
        for item in listed:
            if item.startswith(b"v1a,"):
                for check in self._public:
                    found |= check(item[4:], signed)
        if not found:
            raise Refused("the signature does not match")
        check_window(timestamp, now=self._now, window_s=self._window_s)
        return Verdict(ok=True, delivery_id=delivery(delivery_id))


def _symmetric(secret: bytes) -> bytes:
    key = _decode(secret.removeprefix(b"whsec_"))
    if not SECRET_MIN_BYTES <= len(key) <= SECRET_MAX_BYTES:
        text = f"a standard-webhooks secret has {len(key)} bytes; {SECRET_MIN_BYTES} to {SECRET_MAX_BYTES} are allowed"
        raise ConfigError(text)
    return key


def _decode(text: bytes) -> bytes:
    try:
        return b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        raise ConfigError("a standard-webhooks secret is not base64") from error


def _ed25519(raw: bytes) -> _CheckEd25519:
    """Return the check for one public key; the library is loaded only where a key asks for it."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = Ed25519PublicKey.from_public_bytes(raw)
    except ValueError as error:
        raise ConfigError("a standard-webhooks whpk_ secret is not an ed25519 public key") from error

    def check(signature: bytes, signed: bytes) -> bool:
        try:
            key.verify(b64decode(signature, validate=True), signed)
        except (InvalidSignature, ValueError):
            return False
        return True

    return check
