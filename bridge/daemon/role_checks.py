"""Asks a function's execution role before its mapping polls and before a record is sent for it."""

from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import structlog

from bridge.core.arn import parse_arn
from bridge.core.errors import BridgeError
from bridge.core.function import plain_name
from bridge.core.invocation import DeadLetter
from bridge.core.logging_config import GROUP_PREFIX
from bridge.core.mapping import EventSourceMapping, parse_source
from bridge.core.outcome import OutboxEntry, RecordRefused, TargetTrouble, Transport
from bridge.core.spaces import Space
from bridge.events.outcomes import object_key
from bridge.registry.grants import may_log, reading_refusal, sending_action, sending_refusal
from bridge.registry.roles import NOT_ASSUMED, Role

log = structlog.get_logger("bridge.roles")

_TABLE_LABEL: Final = "2020-01-01T00:00:00.000"
"""Of an embedded stream that is read as a table's: sources/pull/local_formats.py."""


class KnownRoles(Protocol):
    """Finds the roles of functions."""

    @property
    def connection(self) -> str:
        """What looks up and assumes; empty: nothing does."""
        ...

    def of_target(self, target: str) -> Role | None:
        """Return the role of a function as far as it is known, None: it has none."""
        ...

    async def find_of_target(self, target: str) -> Role | None:
        """Return it, looked up where that is due. Raises RoleUnknown."""
        ...

    def arn_of_target(self, target: str) -> str | None:
        """Return the ARN of a function's role, empty where it has none; None: there is no such function."""
        ...

    async def find(self, arn: str) -> Role:
        """Return a role by its ARN, looked up where that is due. Raises BridgeError: it cannot be."""
        ...


def source_arn(mapping: EventSourceMapping, *, region: str, account: str) -> str:
    """Return the ARN that statements name a mapping's source by; empty: no role is asked about it.

    An embedded stream has the one that its events show; a push source, and a cluster that is not MSK's, has none.
    """
    address = parse_source(mapping.source)
    if address.arn or mapping.event_source_arn:
        return address.arn or mapping.event_source_arn
    match address.format:
        case "kinesis":
            return f"arn:aws:kinesis:{region}:{account}:stream/{address.name}"
        case "dynamodb":
            return f"arn:aws:dynamodb:{region}:{account}:table/{address.name}/stream/{_TABLE_LABEL}"
        case "sqs":
            return f"arn:aws:sqs:{region}:{account}:{address.name}"
    return ""


def may_read(role: Role | None, mapping: EventSourceMapping, *, region: str, account: str) -> str:
    """Return why a role keeps a mapping from its source, in AWS's words; empty: it does not."""
    if role is None:
        return ""
    if not role.is_trusting:
        return NOT_ASSUMED
    arn = source_arn(mapping, region=region, account=account)
    return reading_refusal(role, arn) if arn else ""


def mapping_check(roles: KnownRoles, *, region: str, account: str) -> Callable[[EventSourceMapping], Awaitable[str]]:
    """Return what says why a mapping may not be made, as far as roles decide: its source, and where failures go."""

    async def refused(mapping: EventSourceMapping) -> str:
        role = await roles.find_of_target(mapping.function)
        said = may_read(role, mapping, region=region, account=account)
        return said or ("" if role is None else sending_refusal(role, mapping.on_failure))

    return refused


def version_in(stream: str) -> str:
    """Return the function's version, which the name of a log stream holds."""
    return stream.partition("[")[2].partition("]")[0]


def log_check(roles: KnownRoles, *, region: str, account: str) -> Callable[[str, str, str], bool]:
    """Return what says whether a function's role lets it have a log stream, given its name, the stream, the group."""
    told: set[tuple[str, str]] = set()
    home = Space(account, region)

    def may(function: str, stream: str, group: str) -> bool:
        role = roles.of_target(f"{function}:{version_in(stream)}")
        place, space = group or GROUP_PREFIX + plain_name(function), home.within(function)
        if role is None or may_log(role, group=place, stream=stream, region=space.region, account=space.account):
            return True
        if (function, role.arn) not in told:
            told.add((function, role.arn))
            log.warning("function_log_denied", function=function, role=role.arn, log_group=place)
        return False

    return may


class CheckedTransport:
    """`outcome.Transport` that sends what the role of the record's function may write to the target, and as that role.

    What it may not is refused: it stays among the local dead letters. A record whose function or alias is gone is sent
    as the role that it had when the record was stored, or not at all.

    Args:
        inner: sends what no role is asked about.
        target: ARN, or `kafka://CONNECTION/topic`.
        roles: finds them.
        assumed: returns what sends as a role, given its ARN and a function's name; None: no role is assumed for it.
    """

    def __init__(
        self, inner: Transport, *, target: str, roles: KnownRoles, assumed: Callable[[str, str], Transport] | None
    ) -> None:
        self._inner = inner
        self._target = target
        self._roles = roles
        self._assumed = assumed
        self._action = sending_action(target) if target.startswith("arn:") else ""
        self.concurrency = inner.concurrency

    async def send(self, entry: OutboxEntry, letter: DeadLetter | None) -> None:
        """Return once the target has it. See Transport.send."""
        role = await self._role(entry) if self._action else None
        if role is None:
            await self._inner.send(entry, letter)
            return
        name = plain_name(entry.function.partition(":")[0])
        self._check(role, name, letter)
        sender = self._inner
        if self._assumed is not None and self._roles.connection:
            sender = self._assumed(role.arn, name)
        await sender.send(entry, letter)

    async def _role(self, entry: OutboxEntry) -> Role | None:
        """Return the role of a record's function as it is now; of one that is gone, the one that it had."""
        if self._roles.arn_of_target(entry.function) is not None:
            return self._roles.of_target(entry.function)
        if entry.role is None and self._roles.connection:
            raise RecordRefused(f"{entry.function} is gone, and nobody noted its execution role: sent as nobody")
        if not entry.role:
            return None
        try:
            role = await self._roles.find(entry.role)
        except BridgeError as error:
            raise TargetTrouble(f"{self._target}: {error}") from error
        if self._roles.connection and not role.is_known:
            raise RecordRefused(f"{entry.function} is gone, and its execution role {entry.role} cannot be assumed")
        return role

    def _check(self, role: Role, session: str, letter: DeadLetter | None) -> None:
        if self._roles.connection and not role.is_known:
            raise TargetTrouble(f"{self._target}: the execution role {role.arn} is not known yet, or cannot be assumed")
        is_object = letter is not None and parse_arn(self._target).service == "s3"
        resource = f"{self._target}/{object_key(letter)}" if letter is not None and is_object else self._target
        if not role.allows(self._action, resource):
            service = parse_arn(self._target).service
            raise RecordRefused(f"AccessDenied ({service}): {role.denial(self._action, resource, session=session)}")
