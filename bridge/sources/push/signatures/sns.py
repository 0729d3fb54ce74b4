"""SNS: RSA signatures, checked with a certificate that AWS serves and we fetch once.

docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html. A signature says that SNS sent it, not for whom:
anybody with an AWS account can subscribe any URL to a topic of theirs, so the route names its topics.
"""

import asyncio
from base64 import b64decode
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

import structlog

from bridge.core import limits
from bridge.core.errors import ConfigError
from bridge.events.bodies import Unreadable
from bridge.events.http import HttpRequest
from bridge.events.sns import SnsPost, certificate_url, is_raw_delivery, published_at, read_sns
from bridge.sources.push.bounds import Bounds, TooMuch
from bridge.sources.push.signatures.base import Now, Refused, Unavailable, Verdict, Verifier, delivery
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
FUTURE_MAX_S: Final = float(limits.SIGNATURE_WINDOW_S)
_VERSIONS: Final = ("1", "2")

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


class Sns(Verifier):
    """`Signature` of version 1 (SHA-1) and 2 (SHA-256); de-duplicated by MessageId.

    Args:
        secrets: none.
        now: the stepped wall clock.
        window_s: how old a message may be; SNS tries for up to an hour.
        fetch: how certificates are had.
    """

    prepares: ClassVar[bool] = True

    def __init__(
        self,
        *,
        secrets: Sequence[bytes | str],
        now: Now,
        window_s: float = float(limits.SNS_WINDOW_S),
        fetch: Fetch | None = None,
    ) -> None:
        if secrets:
            raise ConfigError("scheme sns takes no secrets")
        self._now = now
        self._window_s = window_s
        self._certificates = _Certificates(fetch or fetch_certificate, now=now)

    async def prepare(self, request: HttpRequest) -> None:
        """Have the certificate, if the message is one that `check` could accept with it."""
        try:
            url = self._read(request)[1]
        except Refused:
            return  # `check` says why
        await self._certificates.obtain(url)

    def check(self, request: HttpRequest) -> Verdict:
        """See `Verifier.check`."""
        post, url = self._read(request)
        certificate = self._certificates.get(url)
        if certificate is None:
            raise Refused("SigningCertURL has no certificate of SNS")
        if not certificate.is_valid(self._now()):
            raise Refused("the certificate has run out, or is not good yet")
        if not _matches(post, certificate):
            raise Refused("the signature does not match")
        self._check_age(post)
        return Verdict(ok=True, delivery_id=delivery(post.message.message_id))

    def _read(self, request: HttpRequest) -> tuple[SnsPost, str]:
        """Return the message and where its certificate is, judged by what costs nothing."""
        try:
            if is_raw_delivery(request.headers):
                raise Refused("raw message delivery is not signed; such a route needs another verify")
            post = read_sns(request.headers, request.body)
            if post.message.signature_version not in _VERSIONS:
                raise Refused("SignatureVersion is neither 1 nor 2")
            return post, certificate_url(post.message)
        except Unreadable as error:
            raise Refused(str(error)) from error

    def _check_age(self, post: SnsPost) -> None:
        try:
            age = self._now() - published_at(post.message)
        except Unreadable as error:
            raise Refused(str(error)) from error
        if not -FUTURE_MAX_S <= age <= self._window_s:
            raise Refused(f"the timestamp is more than {self._window_s:g} s ago, or ahead of now")


class _Certificates:
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


def _matches(post: SnsPost, certificate: Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA1, SHA256

    # Version 1 is SHA-1, still what topics begin with; forging would need a second preimage, not a mere collision.
    algorithm = SHA256() if post.message.signature_version == "2" else SHA1()  # noqa: S303
    try:
        signature = b64decode(post.message.signature, validate=True)
        certificate.key.verify(signature, post.signed(), PKCS1v15(), algorithm)
    except (InvalidSignature, ValueError):
        return False
    return True
