"""GitHub, Stripe, Slack and Shopify: an HMAC-SHA256 over the raw body, each in its own words."""

from base64 import b64encode
from collections.abc import Sequence
from hmac import digest

from bridge.events.http import HttpRequest
from bridge.events.responses import HttpResponse
from bridge.sources.push.signatures.base import (
    WINDOW_DEFAULT_S,
    Now,
    Refused,
    Verdict,
    Verifier,
    check_window,
    delivery,
    header,
    json_object,
    keys_of,
    matches,
    needed,
    text_field,
    window_of,
)

MISMATCH = "the signature does not match"


class GitHub(Verifier):
    """`X-Hub-Signature-256: sha256=HEX` over the body; no time, hence de-duplicated by `X-GitHub-Delivery`.

    docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
    """

    def __init__(self, *, secrets: Sequence[bytes | str], now: Now) -> None:  # noqa: ARG002 - the registry's signature
        self._keys = keys_of(secrets, scheme="github")

    def check(self, request: HttpRequest) -> Verdict:
        """See `Verifier.check`."""
        given = needed(request, b"x-hub-signature-256")
        expected = [b"sha256=" + digest(key, request.body, "sha256").hex().encode("ascii") for key in self._keys]
        if not matches(expected, [given]):
            raise Refused(MISMATCH)
        return Verdict(ok=True, delivery_id=delivery(header(request, b"x-github-delivery")))


class Shopify(Verifier):
    """`X-Shopify-Hmac-Sha256: BASE64` over the body; no time, hence de-duplicated by `X-Shopify-Webhook-Id`.

    shopify.dev/docs/apps/build/webhooks/subscribe/https
    """

    def __init__(self, *, secrets: Sequence[bytes | str], now: Now) -> None:  # noqa: ARG002 - the registry's signature
        self._keys = keys_of(secrets, scheme="shopify")

    def check(self, request: HttpRequest) -> Verdict:
        """See `Verifier.check`."""
        given = needed(request, b"x-shopify-hmac-sha256")
        if not matches([b64encode(digest(key, request.body, "sha256")) for key in self._keys], [given]):
            raise Refused(MISMATCH)
        return Verdict(ok=True, delivery_id=delivery(header(request, b"x-shopify-webhook-id")))


class Stripe(Verifier):
    """`Stripe-Signature: t=TIME,v1=HEX[,v1=HEX…]` over `TIME.BODY`; the delivery id is the event's own.

    docs.stripe.com/webhooks#verify-manually
    """

    def __init__(self, *, secrets: Sequence[bytes | str], now: Now, window_s: float = WINDOW_DEFAULT_S) -> None:
        self._keys = keys_of(secrets, scheme="stripe")
        self._now = now
        self._window_s = window_of(window_s)

    def check(self, request: HttpRequest) -> Verdict:
        """See `Verifier.check`."""
        timestamps, signatures = [], []
        for item in needed(request, b"stripe-signature").split(b","):
            name, _, value = item.strip().partition(b"=")
            if name == b"t":
                timestamps.append(value)
            elif name == b"v1":
                signatures.append(value)
        if len(timestamps) != 1:
            raise Refused("stripe-signature does not hold one time")
        signed = timestamps[0] + b"." + request.body
        expected = [digest(key, signed, "sha256").hex().encode("ascii") for key in self._keys]
        if not matches(expected, signatures):
            raise Refused(MISMATCH)
        check_window(timestamps[0], now=self._now, window_s=self._window_s)
        return Verdict(ok=True, delivery_id=delivery(text_field(json_object(request.body), "id")))


class Slack(Verifier):
    """`X-Slack-Signature: v0=HEX` over `v0:TIME:BODY`; a verified `url_verification` is answered, not stored.

    docs.slack.dev/authentication/verifying-requests-from-slack
    """

    def __init__(self, *, secrets: Sequence[bytes | str], now: Now, window_s: float = WINDOW_DEFAULT_S) -> None:
        self._keys = keys_of(secrets, scheme="slack")
        self._now = now
        self._window_s = window_of(window_s)

    def check(self, request: HttpRequest) -> Verdict:
        """See `Verifier.check`."""
        given = needed(request, b"x-slack-signature")
        timestamp = needed(request, b"x-slack-request-timestamp")
        signed = b"v0:" + timestamp + b":" + request.body
        expected = [b"v0=" + digest(key, signed, "sha256").hex().encode("ascii") for key in self._keys]
        if not matches(expected, [given]):
            raise Refused(MISMATCH)
        check_window(timestamp, now=self._now, window_s=self._window_s)
        event = json_object(request.body)
        if event.get("type") == "url_verification":
            challenge = text_field(event, "challenge").encode("utf-8", "replace")
            response = HttpResponse(status=200, headers=((b"content-type", b"text/plain"),), body=challenge)
            return Verdict(ok=True, response=response)
        return Verdict(ok=True, delivery_id=delivery(text_field(event, "event_id")))
