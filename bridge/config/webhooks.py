"""`[sources.X] type = "webhook"`: routes, whom they believe, and how their events are invoked."""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from bridge.config.section import Section, listed
from bridge.config.values import checked_target, refuse
from bridge.config.verify import WORDS, Scheme, Verify
from bridge.core import limits
from bridge.core.arn import parse_arn
from bridge.core.invocation import InvocationType

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
DEDUPLICATE_MAX_S: Final = 7 * 86_400
TOPICS_MAX: Final = 100
STREAM_FORMS: Final[Mapping[str, str]] = {
    "raw": "webhook-event", "cloudevents": "webhook-event", "s3": "webhook-event", "eventbridge": "webhook-event",
    "sns": "webhook-sns", "cloudwatch-logs": "webhook-logs",
}  # fmt: skip
"""Of formats whose events are no requests with a body."""
GREETED: Final[Mapping[str, frozenset[str]]] = {"cloudevents": frozenset({"OPTIONS"})}
"""Methods that a format takes besides, by its name: a handshake's."""
_PATH: Final = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/-]*\Z")


_MEDIA_TYPE: Final = r"^[A-Za-z0-9!#$&^_.+*-]+/[A-Za-z0-9!#$&^_.+*-]+$"
_OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "apigateway-v1": ("binary_media_types",),
    "alb": ("multi_value_headers",),
    "sns": ("topics",),
    "eventbridge": ("bus_source", "detail_type"),
    "cloudwatch-logs": ("log_group",),
}
"""Settings that a format alone has, by the format's name; they are of no use beside another."""


def _checked_path(path: str) -> str:
    if not path.startswith("/"):
        refuse('must begin with "/"')
    if not _PATH.match(path):
        refuse("holds a character that a route's path cannot have (query, fragment, %, spaces, braces)")
    if "//" in path or {".", ".."} & set(path.split("/")):
        refuse("holds an empty, . or .. part")
    return path


def _checked_topic(topic: str) -> str:
    if topic == "*":
        return topic
    try:
        arn = parse_arn(topic[:-1] + "x" if topic.endswith("*") else topic)
    except ValueError as error:
        refuse(f'{error}, with * as its end, or "*"')
    if arn.service != "sns" or not arn.region or not arn.account:
        refuse('must be the ARN of a topic: arn:aws:sns:REGION:ACCOUNT:NAME, with * as its end, or "*"')
    return topic


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
        description="name[:version or alias] or ARN of the function that gets the events; none: only mappings read it.",
    )
    policy: Literal["implied", "explicit"] = Field(
        default="implied",
        description="implied: naming the function allows it; explicit: its resource policy must (AddPermission).",
    )
    invocation_type: Annotated[InvocationType, Field(strict=False)] = Field(
        default=InvocationType.EVENT,
        description="Event: stored, 202, then invoked; RequestResponse: waits for the answer; DryRun: checks only.",
    )
    format: Literal[
        "apigateway-v2", "apigateway-v1", "alb", "raw", "cloudevents", "sns", "s3", "eventbridge", "cloudwatch-logs",
        "cognito",
    ] = Field(
        default="apigateway-v2",
        description="What a request becomes, and what is done with the function's answer; "
        "raw: the body is the event; cognito: needs RequestResponse.",
    )  # fmt: skip
    binary_media_types: tuple[Annotated[str, Field(max_length=200, pattern=_MEDIA_TYPE)], ...] = listed(
        'For format apigateway-v1: media types that are base64, "image/*" and "*/*" too.', max_length=100
    )
    multi_value_headers: bool = Field(
        default=False, description="For format alb: all values of headers and query, and of the answer's headers."
    )
    topics: tuple[Annotated[str, AfterValidator(_checked_topic)], ...] = listed(
        'For format sns: ARNs of topics, each whole or with * as its end; needed with verify = "sns", ["*"]: any.',
        max_length=TOPICS_MAX,
    )
    bus_source: str = Field(
        default="", max_length=256, description="For format eventbridge: source of JSON that is no event of a bus."
    )
    detail_type: str = Field(
        default="", max_length=128, description="For format eventbridge: likewise its detail-type."
    )
    log_group: str = Field(
        default="",
        max_length=512,
        description='For format cloudwatch-logs: log group of log events that name none; "": /bridge/NAME.',
    )
    verify: Verify = Field(description='Whose requests are taken; "none": anyone\'s.')
    deduplicate_s: int = Field(
        default=limits.DEDUPLICATION_WINDOW_DEFAULT_S,
        ge=0,
        le=DEDUPLICATE_MAX_S,
        description="Seconds a delivery id is remembered; 0: duplicates are taken; left out with sns: its window_s.",
    )
    body_max_bytes: int = Field(
        default=limits.BODY_DEFAULT_MAX_BYTES,
        ge=1,
        le=limits.BODY_MAX_BYTES,
        description="Bytes of a request's body; 413 above.",
    )

    @model_validator(mode="before")
    @classmethod
    def _remember_what_is_good(cls, data: Any) -> Any:
        """Remember what SNS signs for as long as it is good, if the file says nothing: else it could be sent again."""
        if not isinstance(data, dict) or "deduplicate_s" in data:
            return data
        verify = data.get("verify")
        window_s: Any = limits.SNS_WINDOW_S
        if isinstance(verify, dict) and verify.get("scheme") == "sns":
            window_s = verify.get("window_s", window_s)
        elif verify != "sns":
            return data
        is_usable = isinstance(window_s, int | float) and 0 < window_s <= DEDUPLICATE_MAX_S
        return data | {"deduplicate_s": math.ceil(window_s)} if is_usable else data

    @model_validator(mode="after")
    def _options_fit_the_format(self) -> Self:
        for owner, names in _OPTIONS.items():
            for name in names:
                is_chosen = getattr(self, name) != type(self).model_fields[name].default
                if is_chosen and owner != self.format:
                    refuse(f'{name} is for format = "{owner}"')
        if self.format == "cognito" and self.invocation_type is not InvocationType.REQUEST_RESPONSE:
            refuse('format = "cognito" answers what the function returns: it needs invocation_type = "RequestResponse"')
        return self

    @model_validator(mode="after")
    def _sns_is_whole(self) -> Self:
        if self.scheme.scheme != "sns":
            return self
        if self.format != "sns":
            refuse('verify = "sns" is for format = "sns"')
        if not self.topics:
            refuse(
                'verify = "sns" shows that SNS sent it, not for whom: name the topics = ["arn:aws:sns:..."], '
                'or ["*"] for those of anybody'
            )
        return self

    @model_validator(mode="after")
    def _names_are_both_given(self) -> Self:
        if bool(self.bus_source) != bool(self.detail_type):
            refuse("bus_source and detail_type belong together")
        return self

    @property
    def allowed_methods(self) -> frozenset[str]:
        """The methods in force."""
        named = default_methods(self.invocation_type) if self.methods is None else frozenset(self.methods)
        return named | GREETED.get(self.format, frozenset())

    def secrets(self) -> tuple[str, ...]:
        """Return what must not be seen in a log, revealed."""
        return self.scheme.reveal()

    @property
    def format_options(self) -> dict[str, Any]:
        """What the format is made with, by keyword."""
        return {name: getattr(self, name) for name in _OPTIONS.get(self.format, ())}

    @property
    def form(self) -> str:
        """What its events are as a stream, as `sources.pull.push` calls it."""
        return STREAM_FORMS.get(self.format, "webhook")

    @property
    def scheme(self) -> Scheme:
        """Who is checked and how, words included."""
        return WORDS[self.verify]() if isinstance(self.verify, str) else self.verify


def default_methods(invocation_type: str) -> frozenset[str]:
    """Return what a route takes that names no methods."""
    return frozenset(METHODS) if invocation_type == InvocationType.REQUEST_RESPONSE else frozenset({"POST"})
