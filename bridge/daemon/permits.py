"""As whom push sources invoke, which statements the file implies for them, and whether a policy lets one in."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from bridge.config.mqtt import MqttSettings
from bridge.config.webhooks import WebhookSettings
from bridge.core.errors import InvokeDenied
from bridge.core.function import LATEST, function_arn, split_target
from bridge.core.ports import Intake, Receipt
from bridge.core.push import METHOD, Permits, Sender
from bridge.core.record import Record
from bridge.events.alb import target_group_arn
from bridge.registry.attached import Place, place_arn
from bridge.registry.statements import INVOKE, OURS, SOURCE_ACCOUNT, SOURCE_ARN, Question, make_statement

if TYPE_CHECKING:
    from bridge.config.settings import Settings
    from bridge.config.sources import SourceSettings
    from bridge.registry.policies import ResourcePolicies
    from bridge.registry.statements import Statement

EXPLICIT: Final = "explicit"
SID_PREFIX: Final = "config-"
_GATEWAY: Final = "apigateway.amazonaws.com"
_BALANCER: Final = "elasticloadbalancing.amazonaws.com"
_RULES: Final = "events.amazonaws.com"
_SERVICES: Final[Mapping[str, tuple[str, str]]] = {
    "sns": ("sns.amazonaws.com", "arn:aws:sns:{region}:{account}:{name}"),
    "s3": ("s3.amazonaws.com", "arn:aws:s3:::{name}"),
    "eventbridge": (_RULES, "arn:aws:events:{region}:{account}:rule/{name}"),
    "schedule": (_RULES, "arn:aws:events:{region}:{account}:rule/{name}"),
    "cloudwatch-logs": ("logs.amazonaws.com", "arn:aws:logs:{region}:{account}:log-group:{group}:*"),
    "cognito": ("cognito-idp.amazonaws.com", "arn:aws:cognito-idp:{region}:{account}:userpool/{name}"),
    "iot-raw": ("iot.amazonaws.com", "arn:aws:iot:{region}:{account}:rule/{name}"),
    "iot-rule": ("iot.amazonaws.com", "arn:aws:iot:{region}:{account}:rule/{name}"),
}
"""Format -> who sends such events on AWS, and what their SourceArn is there."""


def sender_of(name: str, source: "SourceSettings", settings: "Settings") -> Sender:
    """Return as whom a push source invokes: as the service of AWS whose events it brings, else as `bridge`."""
    region, account = settings.region, settings.account
    if isinstance(source, WebhookSettings):
        return _sender_of_route(name, source, region=region, account=account)
    word = source.format if isinstance(source, MqttSettings) else source.type
    return _sender(word, name, kind=source.type, region=region, account=account)


def _sender_of_route(name: str, source: WebhookSettings, *, region: str, account: str) -> Sender:
    if source.format.startswith("apigateway"):
        arn = f"arn:aws:execute-api:{region}:{account}:{name}/$default/{METHOD}{source.path}"
        return Sender(service=_GATEWAY, arn=arn, account=account)
    if source.format == "alb":
        arn = target_group_arn(name, region=region, account_id=account)
        return Sender(service=_BALANCER, arn=arn, account=account)
    if source.format == "sns" and len(source.topics) == 1 and not source.topics[0].endswith("*"):
        return Sender(service=_SERVICES["sns"][0], arn=source.topics[0], account=source.topics[0].split(":")[4])
    group = source.log_group or f"/bridge/{name}"
    return _sender(source.format, name, kind=source.type, region=region, account=account, group=group)


def _sender(word: str, name: str, *, kind: str, **values: Any) -> Sender:
    service, arn = _SERVICES.get(word, (OURS, f"arn:bridge:{kind}:{{region}}:{{account}}:{{name}}"))
    return Sender(service=service, arn=arn.format(name=name, **values), account=values["account"])


def implied_statements(settings: "Settings") -> "dict[Place, list[Statement]]":
    """Return the statements that sources imply by naming their functions, by whose policy they belong to."""
    implied: dict[Place, list[Statement]] = {}
    for name, source in sorted(settings.sources.items()):
        if not source.function or source.policy == EXPLICIT:
            continue
        place, resource = _place(source.function, settings)
        sender = sender_of(name, source, settings)
        methods = sorted(source.allowed_methods) if isinstance(source, WebhookSettings) else []
        statement = make_statement(
            SID_PREFIX + name,
            action=INVOKE,
            principal=sender.service,
            resource=resource,
            conditions={"SourceArn": sender.arn_of(methods[0] if len(methods) == 1 else "*")},
        )
        implied.setdefault(place, []).append(statement)
    return implied


def _place(target: str, settings: "Settings") -> "tuple[Place, str]":
    """Return whose policy a target's is, and the ARN that its statements name."""
    name, qualifier = split_target(target)
    arn = function_arn(name, region=settings.region, account=settings.account)
    place = arn, "" if qualifier == LATEST else qualifier
    return place, place_arn(place)


def make_permits(policies: "ResourcePolicies", settings: "Settings") -> Permits:
    """Return what asks the resource policies for sources whose settings say `policy = "explicit"`.

    Args:
        policies: they are asked.
        settings: those of the start, whose account and region count until the next one.
    """

    def check(sender: Sender, target: str, method: str) -> None:
        place, resource = _place(target, settings)
        keys = {SOURCE_ARN: sender.arn_of(method), SOURCE_ACCOUNT: sender.account}
        if not policies.allows(place, Question(action=INVOKE, service=sender.service, keys=keys)):
            raise InvokeDenied(
                f"{sender.service} ({keys[SOURCE_ARN]}) is not authorized to perform: {INVOKE} on resource: {resource} "
                f"because no resource-based policy allows the {INVOKE} action"
            )

    return check


class PermittedIntake:
    """`ports.Intake` of one source: it stores what the function's policy lets the source invoke.

    What it does not let in waits with its sender, as when the disk is full: a statement that is added lets it through.
    """

    def __init__(self, intake: Intake, sender: Sender, permits: Permits) -> None:
        self._intake = intake
        self._sender = sender
        self._permits = permits

    async def submit(self, record: Record, *, deduplicate_s: float = 0.0) -> Receipt:
        """Store once. See ports.Intake; raises InvokeDenied besides: nothing was stored."""
        if record.function:
            self._permits(self._sender, record.function, "")
        return await self._intake.submit(record, deduplicate_s=deduplicate_s)

    def archive(self, record: Record) -> None:
        """Keep for replay. See ports.Intake."""
        self._intake.archive(record)
