"""Schemes by the name they have in the configuration."""

import inspect
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final

from bridge.core.errors import ConfigError
from bridge.core.ports import Clock
from bridge.sources.push.signatures.base import Verifier
from bridge.sources.push.signatures.generic import Anyone, Basic, Bearer, Hmac
from bridge.sources.push.signatures.sns import Sns
from bridge.sources.push.signatures.standard import StandardWebhooks
from bridge.sources.push.signatures.twilio import Twilio
from bridge.sources.push.signatures.vendors import GitHub, Shopify, Slack, Stripe

SCHEMES: Final[Mapping[str, type[Verifier]]] = {
    "standard-webhooks": StandardWebhooks,
    "github": GitHub,
    "stripe": Stripe,
    "slack": Slack,
    "shopify": Shopify,
    "twilio": Twilio,
    "hmac": Hmac,
    "basic": Basic,
    "bearer": Bearer,
    "sns": Sns,
    "none": Anyone,
}


def options_of(scheme: str) -> frozenset[str]:
    """Return the names of the options that a scheme takes besides its secrets."""
    return frozenset(inspect.signature(SCHEMES[scheme]).parameters) - {"secrets", "now", "fetch"}


def make_verifier(scheme: str, *, secrets: Sequence[bytes | str] = (), clock: Clock, **options: Any) -> Verifier:
    """Return the verifier for a route.

    Args:
        scheme: a key of `SCHEMES`.
        secrets: all are tried, so that a new one can be added before the old one goes.
        clock: its stepped time is compared with signed times.
        options: what the scheme's class takes by keyword, e.g. `public_url` for twilio.

    Raises:
        ConfigError: unknown scheme or option, a missing or unusable secret or option.
    """
    if scheme not in SCHEMES:
        raise ConfigError(f"unknown scheme {scheme!r}{_hint(scheme, SCHEMES)}; known: {', '.join(SCHEMES)}")
    known = options_of(scheme)
    for name in options:
        if name not in known:
            raise ConfigError(f"scheme {scheme} has no option {name!r}{_hint(name, known)}")
    factory: Any = SCHEMES[scheme]
    verifier: Verifier = factory(secrets=secrets, now=clock.stepped, **options)
    return verifier


def _hint(name: str, known: Mapping[str, Any] | frozenset[str]) -> str:
    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
