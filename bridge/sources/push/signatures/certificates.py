"""Certificates that SNS signs with: fetched once, few kept, few asked for, whatever strangers want."""

import asyncio
from base64 import b64decode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from bridge.events.sns import SnsPost
from bridge.sources.push.bounds import Bounds, TooMuch
from bridge.sources.push.signatures.base import Now, Unavailable
from bridge.util import https

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

log = structlog.get_logger("bridge.webhook")

CERTIFICATE_MAX_BYTES: Final = 64 * 1024
CERTIFICATE_FETCH_S: Final = 5.0
"""SNS waits 15 s for an answer."""
CERTIFICATES_KEPT_MAX: Final = 32
FAILURE_KEPT_S: Final = 30.0
"""A URL that gave no certificate is not asked again for so long."""
KEY_MIN_BITS: Final = 2048

Fetch = Callable[[str], Awaitable[bytes]]
"""Returns what is at a pinned URL. Raises https.FetchFailed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate of SNS as far as we need it."""

    key: "RSAPublicKey"
    valid_from: float
    """Epoch seconds."""
    valid_until: float

    def is_valid(self, at: float) -> bool:
        """Say whether it is good at that time, epoch seconds."""
        return self.valid_from <= at <= self.valid_until

    def signs(self, post: SnsPost) -> bool:
        """Say whether a post's signature is by its key."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA1, SHA256

        # Version 1 is SHA-1, still what topics begin with; forging would need a second preimage, not a mere collision.
        algorithm = SHA256() if post.message.signature_version == "2" else SHA1()  # noqa: S303
        try:
            signature = b64decode(post.message.signature, validate=True)
            self.key.verify(signature, post.signed(), PKCS1v15(), algorithm)
        except (InvalidSignature, ValueError):
            return False
        return True


class Certificates:
    """Certificates by URL: few are kept, few are fetched, whatever strangers ask for."""

    def __init__(self, fetch: Fetch, *, now: Now) -> None:
        self._fetch = fetch
        self._now = now
        self._kept: dict[str, Certificate] = {}
        self._failed: dict[str, float] = {}
        self._running: dict[str, asyncio.Future[None]] = {}
        self._bounds = Bounds(now)

    def get(self, url: str) -> Certificate | None:
        """Return what was fetched."""
        return self._kept.get(url)

    async def obtain(self, url: str) -> None:
        """Fetch a certificate unless it is here or was asked for in vain; those who ask meanwhile wait for the first.

        Raises:
            Unavailable: it cannot be had now; the sender should try again.
        """
        now = self._now()
        kept = self._kept.get(url)
        if kept is not None and kept.is_valid(now):
            return
        if (running := self._running.get(url)) is not None:
            await asyncio.wait({running})
            if url not in self._kept and url not in self._failed:
                raise Unavailable("the certificate could not be had; try again")
            return
        if 0 <= now - self._failed.get(url, -FAILURE_KEPT_S) < FAILURE_KEPT_S:
            return
        done = self._running[url] = asyncio.get_running_loop().create_future()
        try:
            with self._bounds.one():
                await self._obtain(url)
        except TooMuch as error:
            raise Unavailable("too many certificates are asked for; try again") from error
        finally:
            del self._running[url]
            done.set_result(None)

    async def _obtain(self, url: str) -> None:
        try:
            certificate = read_certificate(await self._fetch(url), host=url.split("/")[2])
        except https.FetchFailed as error:
            log.warning("certificate_not_fetched", url=url, error=str(error))
            if not 400 <= error.status < 500:  # else there is none, and will not be
                raise Unavailable("the certificate could not be had; try again") from error
            certificate = None
        except ValueError as error:
            log.warning("certificate_refused", url=url, error=str(error))
            certificate = None
        if certificate is None:
            _keep(self._failed, url, self._now())
        else:
            self._failed.pop(url, None)
            _keep(self._kept, url, certificate)


def _keep(kept: dict[str, Any], url: str, value: Any) -> None:
    """Keep the newest."""
    kept.pop(url, None)
    kept[url] = value
    if len(kept) > CERTIFICATES_KEPT_MAX:
        del kept[next(iter(kept))]


async def fetch_certificate(url: str) -> bytes:
    """Return what is at the URL of a certificate. Raises https.FetchFailed."""
    return await https.fetch(url, body_max_bytes=CERTIFICATE_MAX_BYTES, timeout_s=CERTIFICATE_FETCH_S)


def read_certificate(pem: bytes, *, host: str) -> Certificate:
    """Return a certificate that the SNS of a region signs with; cryptography is loaded with the first one.

    Its chain is not followed: what is served leaves intermediates out, and that AWS serves it is what TLS to a pinned
    host has shown (decision 14). Whose it is and how long it is good for is checked.

    Raises:
        ValueError: no certificate, not of SNS, or with a weak or other key.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    certificate = x509.load_pem_x509_certificate(pem)
    key = certificate.public_key()
    if not isinstance(key, RSAPublicKey) or key.key_size < KEY_MIN_BITS:
        raise ValueError("the certificate's key is no RSA key of 2048 bits or more")
    names = {str(name.value) for name in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)}
    try:
        listed = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names |= set(listed.value.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        pass
    if names.isdisjoint(_names_of(host)):
        raise ValueError("the certificate is not of SNS")
    return Certificate(
        key=key,
        valid_from=certificate.not_valid_before_utc.timestamp(),
        valid_until=certificate.not_valid_after_utc.timestamp(),
    )


def _names_of(host: str) -> set[str]:
    """Return whom AWS's certificates of a region are for: which of these names differs by region (aws-sdk-java-v2)."""
    region, suffix = host.removeprefix("sns.").split(".", 1)
    names = {f"sns.{suffix}", host, f"sns-signing.{region}.{suffix}", f"sns-{region}.{suffix}"}
    return names | ({f"sns-us-gov-west-1.{suffix}"} if region.startswith("us-gov-") else set())
