"""`[sources.X] type = "webhook"`: routes, whom they believe, and how their events are invoked."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from bridge.config.section import Section, listed
from bridge.config.values import checked_target, refuse
from bridge.config.verify import Anyone, Scheme, Verify
from bridge.core import limits
from bridge.core.invocation import InvocationType

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
DEDUPLICATE_MAX_S: Final = 7 * 86_400
_PATH: Final = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/-]*\Z")


_OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {}
"""Settings that a format alone has, by the format's name; they are of no use beside another."""


def _checked_path(path: str) -> str:
    if not path.startswith("/"):
        refuse('must begin with "/"')
    if not _PATH.match(path):
        refuse("holds a character that a route's path cannot have (query, fragment, %, spaces, braces)")
    if "//" in path or {".", ".."} & set(path.split("/")):
        refuse("holds an empty, . or .. part")
    return path


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
    format: Literal["apigateway-v2"] = Field(default="apigateway-v2", description="What a request becomes.")
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

    @model_validator(mode="after")
    def _options_fit_the_format(self) -> Self:
        for owner, names in _OPTIONS.items():
            for name in names:
                if name in self.model_fields_set and owner != self.format:
                    refuse(f'{name} is for format = "{owner}"')
        return self

    @property
    def allowed_methods(self) -> frozenset[str]:
        """The methods in force."""
        return default_methods(self.invocation_type) if self.methods is None else frozenset(self.methods)

    def secrets(self) -> tuple[str, ...]:
        """Return what must not be seen in a log, revealed."""
        return self.scheme.reveal()

    @property
    def format_options(self) -> dict[str, Any]:
        """What the format is made with, by keyword."""
        return {name: getattr(self, name) for name in _OPTIONS.get(self.format, ())}

    @property
    def scheme(self) -> Scheme:
        """Who is checked and how, `"none"` included."""
        return Anyone() if isinstance(self.verify, str) else self.verify


def default_methods(invocation_type: str) -> frozenset[str]:
    """Return what a route takes that names no methods."""
    return frozenset(METHODS) if invocation_type == InvocationType.REQUEST_RESPONSE else frozenset({"POST"})
