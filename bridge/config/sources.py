"""`[sources.X]`: webhook routes, whom they believe, and how their events are invoked."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeAlias

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from bridge.config.mistakes import listing
from bridge.config.section import Section, listed
from bridge.config.values import SecretReference, refuse
from bridge.core import limits
from bridge.core.errors import ConfigError
from bridge.core.function import LATEST, NAME_PATTERN, split_target
from bridge.core.invocation import InvocationType

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
DEDUPLICATE_MAX_S: Final = 7 * 86_400
_PATH: Final = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/-]*\Z")
_HEADER: Final = r"^[A-Za-z0-9_-]+$"


# --- verify ---


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


class Anyone(Delivered):
    """Nobody is checked: whoever can reach the route may post."""

    scheme: Literal["none"] = "none"
    secrets: tuple[SecretReference, ...] = listed("None.", max_length=0)


_SCHEMES: Final[Mapping[str, type[Scheme]]] = {
    "standard-webhooks": StandardWebhooks, "github": GitHub, "stripe": Stripe, "slack": Slack, "shopify": Shopify,
    "twilio": Twilio, "hmac": Hmac, "basic": Basic, "bearer": Bearer, "none": Anyone,
}  # fmt: skip
SCHEMES: Final = tuple(_SCHEMES)


def _scheme_of(value: Any) -> str | None:
    if isinstance(value, Scheme):
        return value.scheme
    if value == "none":
        return "word"
    scheme = value.get("scheme") if isinstance(value, dict) else None
    return scheme if isinstance(scheme, str) and scheme in _SCHEMES else None


Verify: TypeAlias = Annotated[
    Annotated[Literal["none"], Tag("word")]
    | Annotated[StandardWebhooks, Tag("standard-webhooks")]
    | Annotated[GitHub, Tag("github")]
    | Annotated[Stripe, Tag("stripe")]
    | Annotated[Slack, Tag("slack")]
    | Annotated[Shopify, Tag("shopify")]
    | Annotated[Twilio, Tag("twilio")]
    | Annotated[Hmac, Tag("hmac")]
    | Annotated[Basic, Tag("basic")]
    | Annotated[Bearer, Tag("bearer")]
    | Annotated[Anyone, Tag("none")],
    Discriminator(
        _scheme_of,
        custom_error_type="scheme",
        custom_error_message=f'must be {{ scheme = "...", secrets = [...] }} with a scheme of {listing(SCHEMES[:-1])}, '
        'or "none" to let anyone post',
    ),
]


# --- the source ---


def _checked_path(path: str) -> str:
    if not path.startswith("/"):
        refuse('must begin with "/"')
    if not _PATH.match(path):
        refuse("holds a character that a route's path cannot have (query, fragment, %, spaces, braces)")
    if "//" in path or {".", ".."} & set(path.split("/")):
        refuse("holds an empty, . or .. part")
    return path


def checked_target(target: str) -> str:
    """Return a function's `name[:qualifier]` as it is, or refuse it."""
    name, qualifier = split_target(target)
    if not NAME_PATTERN.match(name):
        refuse("must be name or name:qualifier; a name is 1..64 of a-z A-Z 0-9 _ -")
    if (":" in target and not qualifier) or qualifier not in ("", LATEST):
        refuse(f"the only qualifier there is: {LATEST}")
    return target


class WebhookSettings(Section):
    """One route of the public listener."""

    ANY: ClassVar[frozenset[str]] = frozenset(METHODS)

    type: Literal["webhook"] = Field(description="Kind of source.")
    path: Annotated[str, AfterValidator(_checked_path)] = Field(
        max_length=limits.PATH_MAX_BYTES, description="Path of the route, matched whole."
    )
    methods: tuple[Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"], ...] | None = listed(
        "Methods that are taken; left out: POST, or any where invocation_type is RequestResponse.",
        default=None,
        min_length=1,
        max_length=len(METHODS),
    )
    function: Annotated[str, AfterValidator(checked_target)] | None = Field(
        default=None,
        description="name or name:$LATEST of the function that gets the events; left out where only mappings read it.",
    )
    invocation_type: Annotated[InvocationType, Field(strict=False)] = Field(
        default=InvocationType.EVENT,
        description="Event: stored, 202, then invoked; RequestResponse: waits for the answer; DryRun: checks only.",
    )
    verify: Verify = Field(description='Whose requests are taken; "none": anyone\'s.')
    deduplicate_s: int = Field(
        default=limits.DEDUPLICATION_WINDOW_DEFAULT_S,
        ge=0,
        le=DEDUPLICATE_MAX_S,
        description="Seconds a delivery id is remembered; 0: duplicates are taken.",
    )
    body_max_bytes: int = Field(
        default=limits.BODY_DEFAULT_MAX_BYTES,
        ge=1,
        le=limits.BODY_MAX_BYTES,
        description="Bytes of a request's body; 413 above.",
    )

    @property
    def allowed_methods(self) -> frozenset[str]:
        """The methods in force."""
        return default_methods(self.invocation_type) if self.methods is None else frozenset(self.methods)

    @property
    def scheme(self) -> Scheme:
        """Who is checked and how, `"none"` included."""
        return Anyone() if isinstance(self.verify, str) else self.verify


def default_methods(invocation_type: str) -> frozenset[str]:
    """Return what a route takes that names no methods."""
    return frozenset(METHODS) if invocation_type == InvocationType.REQUEST_RESPONSE else frozenset({"POST"})
