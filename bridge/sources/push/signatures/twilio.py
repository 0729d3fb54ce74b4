"""Twilio: HMAC-SHA1 (or SHA256, where the request says so) over the public URL and the sorted form fields.

www.twilio.com/docs/usage/security#validating-requests. The URL is the one Twilio called, which only the operator
knows (`public_url`). A JSON body is covered by its SHA-256 in the URL's `bodySHA256`.
"""

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from hmac import compare_digest, digest
from typing import Final
from urllib.parse import unquote_to_bytes, urlsplit

from bridge.core.errors import ConfigError
from bridge.events.http import HttpRequest
from bridge.sources.push.signatures.base import (
    Now,
    Refused,
    Verdict,
    Verifier,
    delivery,
    header,
    keys_of,
    matches,
    needed,
)

FIELDS_MAX: Final = 1000
_ALGORITHMS: Final = {b"": "sha1", b"HMAC_SHA1": "sha1", b"HMAC_SHA256": "sha256"}
_PORTS: Final = {"https": 443, "http": 80}


class Twilio(Verifier):
    """`X-Twilio-Signature`; de-duplicated by `I-Twilio-Idempotency-Token`.

    Args:
        secrets: auth tokens (or shared keys).
        now: not used: Twilio signs no time.
        public_url: the URL configured at Twilio, without its query; an origin alone gets the request's path.
    """

    def __init__(self, *, secrets: Sequence[bytes | str], now: Now, public_url: str = "") -> None:  # noqa: ARG002
        self._keys = keys_of(secrets, scheme="twilio")
        parts = urlsplit(public_url)
        if parts.scheme not in _PORTS or not parts.hostname or parts.query or parts.fragment:
            raise ConfigError("scheme twilio needs public_url: the http(s) URL that Twilio calls, without a query")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        port = parts.port or _PORTS[parts.scheme]
        # Twilio signs the URL with or without its port, and says not which (as the vendor's SDKs do, try both).
        self._origins = [f"{parts.scheme}://{host}".encode(), f"{parts.scheme}://{host}:{port}".encode()]
        self._path = parts.path.encode("ascii") if parts.path not in ("", "/") else b""

    def check(self, request: HttpRequest) -> Verdict:
        """See `Verifier.check`."""
        given = needed(request, b"x-twilio-signature")
        algorithm = _ALGORITHMS.get(_algorithm(header(request, b"x-twilio-webhooks-signature-settings")).upper())
        if algorithm is None:
            raise Refused("unknown signature algorithm")
        target = (self._path or request.path) + (b"?" + request.query if request.query else b"")
        fields = self._fields(request)
        signed = [origin + target + fields for origin in self._origins]
        expected = [b64encode(digest(key, text, algorithm)) for key in self._keys for text in signed]
        if not matches(expected, [given]):
            raise Refused("the signature does not match")
        return Verdict(ok=True, delivery_id=delivery(header(request, b"i-twilio-idempotency-token")))

    @staticmethod
    def _fields(request: HttpRequest) -> bytes:
        """Return the form's sorted fields as they are signed; a body of another type must be covered by the URL."""
        content_type = header(request, b"content-type").partition(b";")[0].strip().lower()
        if content_type == b"application/x-www-form-urlencoded":
            return b"".join(name + value for name, value in sorted(set(_pairs(request.body))))
        announced = dict(_pairs(request.query)).get(b"bodySHA256", b"")
        covered = compare_digest(announced.lower(), hashlib.sha256(request.body).hexdigest().encode("ascii"))
        if (request.body or announced) and not covered:
            raise Refused("bodySHA256 does not cover the body")
        return b""


def _pairs(form: bytes) -> list[tuple[bytes, bytes]]:
    """Return a form's fields, decoded, empty values kept."""
    items = form.split(b"&")
    if len(items) > FIELDS_MAX:
        raise Refused(f"more than {FIELDS_MAX} fields")
    pairs = (item.replace(b"+", b" ").partition(b"=") for item in items if item)
    return [(unquote_to_bytes(name), unquote_to_bytes(value)) for name, _, value in pairs]


def _algorithm(settings: bytes) -> bytes:
    for part in settings.split(b","):
        name, _, value = part.partition(b"=")
        if name.strip() == b"algorithm":
            return value.strip()
    return b""
