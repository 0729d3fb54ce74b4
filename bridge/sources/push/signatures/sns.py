"""SNS: RSA signatures, checked with a certificate that AWS serves and we fetch once.

docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html. A signature says that SNS sent it, not for whom:
anybody with an AWS account can subscribe any URL to a topic of theirs, so the route names its topics.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Final

from bridge.core import limits
from bridge.core.errors import ConfigError
from bridge.events.bodies import Unreadable
from bridge.events.http import HttpRequest
from bridge.events.sns import SnsPost, certificate_url, is_raw_delivery, published_at, read_sns
from bridge.sources.push.signatures.base import Now, Refused, Verdict, Verifier, delivery

if TYPE_CHECKING:
    from bridge.sources.push.signatures.certificates import Certificates

FUTURE_MAX_S: Final = float(limits.SIGNATURE_WINDOW_S)
_VERSIONS: Final = ("1", "2")


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
        fetch: Callable[[str], Awaitable[bytes]] | None = None,
    ) -> None:
        if secrets:
            raise ConfigError("scheme sns takes no secrets")
        self._now = now
        self._window_s = window_s
        self._fetch = fetch
        self._certificates: Certificates | None = None

    async def prepare(self, request: HttpRequest) -> None:
        """Have the certificate, if the message is one that `check` could accept with it."""
        try:
            url = self._read(request)[1]
        except Refused:
            return  # `check` says why
        if self._certificates is None:  # what fetches and reads them is loaded with the first
            from bridge.sources.push.signatures.certificates import Certificates, fetch_certificate

            self._certificates = Certificates(self._fetch or fetch_certificate, now=self._now)
        await self._certificates.obtain(url)

    def check(self, request: HttpRequest) -> Verdict:
        """See `Verifier.check`."""
        post, url = self._read(request)
        certificate = self._certificates.get(url) if self._certificates is not None else None
        if certificate is None:
            raise Refused("SigningCertURL has no certificate of SNS")
        if not certificate.is_valid(self._now()):
            raise Refused("the certificate has run out, or is not good yet")
        if not certificate.signs(post):
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
