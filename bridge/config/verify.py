"""`verify` of a webhook route: the signature schemes, each with the options that its verifier takes."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import Discriminator, Field, Tag, model_validator

from bridge.config.mistakes import listing
from bridge.config.section import Section, listed
from bridge.config.values import SecretReference, refuse
from bridge.core import limits
from bridge.core.errors import ConfigError

_HEADER: Final = r"^[A-Za-z0-9_-]+$"


class Scheme(Section):
    """What all schemes share; subclasses add the options their verifier takes by keyword."""

    secrets: tuple[SecretReference, ...] = listed(
        "Shared secrets; each is tried, so that a new one can be added before the old one goes.",
        default=...,
        min_length=1,
        max_length=10,
    )
    scheme: str

    def options(self) -> dict[str, Any]:
        """Return the keyword options of `make_verifier`."""
        return {name: getattr(self, name) for name in type(self).model_fields if name not in {"scheme", "secrets"}}

    def reveal(self) -> tuple[str, ...]:
        """Return the secrets for `make_verifier`."""
        return tuple(secret.reveal() for secret in self.secrets)

    @model_validator(mode="after")
    def _is_usable(self) -> Self:
        """Build the verifier once, so that an unusable secret or option is a mistake of the file."""
        from bridge.sources.push.signatures import make_verifier
        from bridge.util.clocks import SystemClock

        try:
            make_verifier(self.scheme, secrets=self.reveal(), clock=SystemClock(), **self.options())
        except ConfigError as error:
            refuse(str(error))
        except ValueError:  # a URL or header that cannot even be taken apart
            refuse(f"an option of scheme {self.scheme} cannot be used")
        return self


class Windowed(Scheme):
    """A scheme whose requests carry a signed time."""

    window_s: float = Field(
        default=limits.SIGNATURE_WINDOW_S,
        ge=1,
        le=3600,
        description="Seconds, past or future, that a signed time may be from now.",
    )


class Delivered(Scheme):
    """A scheme in which the operator says where the sender's delivery id is."""

    delivery_header: str = Field(
        default="",
        max_length=100,
        pattern=r"^[A-Za-z0-9_-]*$",
        description='Header with the sender\'s delivery id; "": no de-duplication.',
    )


class StandardWebhooks(Windowed):
    """standardwebhooks.com: `whsec_…` secrets, or `whpk_…` public keys."""

    scheme: Literal["standard-webhooks"]


class GitHub(Scheme):
    """X-Hub-Signature-256."""

    scheme: Literal["github"]


class Stripe(Windowed):
    """Stripe-Signature."""

    scheme: Literal["stripe"]


class Slack(Windowed):
    """X-Slack-Signature; answers url_verification."""

    scheme: Literal["slack"]


class Shopify(Scheme):
    """X-Shopify-Hmac-Sha256."""

    scheme: Literal["shopify"]


class Twilio(Scheme):
    """X-Twilio-Signature."""

    scheme: Literal["twilio"]
    public_url: str = Field(max_length=2000, description="The URL that Twilio calls, without a query.")


class Hmac(Windowed, Delivered):
    """Any other sender that signs with an HMAC."""

    scheme: Literal["hmac"]
    header: str = Field(max_length=100, pattern=_HEADER, description="Header with the signature.")
    algorithm: Literal["sha1", "sha256", "sha512"] = Field(default="sha256", description="Hash of the HMAC.")
    encoding: Literal["hex", "base64"] = Field(default="hex", description="How the signature is written.")
    prefix: str = Field(default="", max_length=100, description='What stands before the signature, such as "sha256=".')
    timestamp_header: str = Field(
        default="",
        max_length=100,
        pattern=r"^[A-Za-z0-9_-]*$",
        description='Header with epoch seconds; "": no time is checked.',
    )
    template: str = Field(
        default="",
        max_length=1000,
        description='What is signed; "": {body}, or {timestamp}.{body} where there is a time.',
    )


class Basic(Delivered):
    """HTTP basic; a secret is `user:password`."""

    scheme: Literal["basic"]


class Bearer(Delivered):
    """A bearer token."""

    scheme: Literal["bearer"]


class Sns(Scheme):
    """What SNS signs, for format sns; whose topics, the route says."""

    scheme: Literal["sns"] = "sns"
    secrets: tuple[SecretReference, ...] = listed("None.", max_length=0)
    window_s: float = Field(
        default=limits.SNS_WINDOW_S,
        ge=60,
        le=86_400,
        description="Seconds ago that a message may have been published; SNS tries for an hour at most.",
    )


class Anyone(Delivered):
    """Nobody is checked: whoever can reach the route may post."""

    scheme: Literal["none"] = "none"
    secrets: tuple[SecretReference, ...] = listed("None.", max_length=0)


_SCHEMES: Final[Mapping[str, type[Scheme]]] = {
    "standard-webhooks": StandardWebhooks, "github": GitHub, "stripe": Stripe, "slack": Slack, "shopify": Shopify,
    "twilio": Twilio, "hmac": Hmac, "basic": Basic, "bearer": Bearer, "sns": Sns, "none": Anyone,
}  # fmt: skip
SCHEMES: Final = tuple(_SCHEMES)
WORDS: Final[Mapping[str, type[Sns | Anyone]]] = {"sns": Sns, "none": Anyone}
"""Schemes that need nothing and may be written as a word."""


def _scheme_of(value: Any) -> str | None:
    if isinstance(value, Scheme):
        return value.scheme
    if isinstance(value, str) and value in WORDS:
        return "word"
    scheme = value.get("scheme") if isinstance(value, dict) else None
    return scheme if isinstance(scheme, str) and scheme in _SCHEMES else None


Verify: TypeAlias = Annotated[
    Annotated[Literal["sns", "none"], Tag("word")]
    | Annotated[StandardWebhooks, Tag("standard-webhooks")]
    | Annotated[GitHub, Tag("github")]
    | Annotated[Stripe, Tag("stripe")]
    | Annotated[Slack, Tag("slack")]
    | Annotated[Shopify, Tag("shopify")]
    | Annotated[Twilio, Tag("twilio")]
    | Annotated[Hmac, Tag("hmac")]
    | Annotated[Basic, Tag("basic")]
    | Annotated[Bearer, Tag("bearer")]
    | Annotated[Sns, Tag("sns")]
    | Annotated[Anyone, Tag("none")],
    Discriminator(
        _scheme_of,
        custom_error_type="scheme",
        custom_error_message=f'must be {{ scheme = "...", secrets = [...] }} with a scheme of {listing(SCHEMES[:-2])}, '
        'or "sns" for what SNS signs, or "none" to let anyone post',
    ),
]
