"""Execution roles as Lambda's API refuses them: none to assume, or without what a configuration asks for (5.8)."""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from bridge.api.awslambda.errors import Refused, invalid
from bridge.api.awslambda.names import denied
from bridge.core.errors import BridgeError
from bridge.registry.access import Caller
from bridge.registry.grants import network_refusal, sending_refusal
from bridge.registry.roles import NOT_ASSUMED, Role

PASS_ROLE: Final = "iam:PassRole"  # noqa: S105 - an action


class RoleFinder(Protocol):
    """Finds execution roles."""

    async def find(self, arn: str) -> Role:
        """Return a role by its ARN; raises BridgeError: it cannot be said what it may do."""
        ...

    def known(self, arn: str) -> Role:
        """Return a role by its ARN as far as it is known: nothing is asked."""
        ...


async def check_configuration(
    roles: RoleFinder | None, settings: Mapping[str, Any], caller: Caller, *, is_passed: bool = True
) -> None:
    """Refuse the settings of a function whose role cannot be assumed, or may not do what they ask for.

    Args:
        roles: the roles there are; None: nothing is asked of any.
        settings: FunctionConfiguration's, by AWS's names, as they are to be.
        caller: who gives the function its role: none to a function of another account, nor one of another account's;
            a function that calls by its own role only what that role lets it pass.
        is_passed: the caller gives it; otherwise the function had it before, and nobody is asked for leave again.
    """
    role = await _found(roles, settings.get("Role", ""))
    if role is None:
        return
    if is_passed and (caller.foreign or (role.is_known and role.account != caller.account)):
        raise Refused("AccessDeniedException", "Cross-account pass role is not allowed.", status=403)
    if is_passed and caller.role is not None and not caller.role.allows(PASS_ROLE, role.arn):
        raise denied(caller, PASS_ROLE, role.arn)
    if not role.is_trusting:
        raise invalid(NOT_ASSUMED)
    target = settings.get("DeadLetterConfig", {}).get("TargetArn", "")
    if target and (said := sending_refusal(role, target)):
        raise invalid(said)
    if settings.get("VpcConfig", {}).get("SubnetIds") and (said := network_refusal(role)):
        raise invalid(said)


async def check_destinations(roles: RoleFinder | None, role_arn: str, config: Mapping[str, Any]) -> None:
    """Refuse destinations that a function's role may not write to; `config` is FunctionEventInvokeConfig."""
    role = await _found(roles, role_arn)
    for place in config.get("DestinationConfig", {}).values():
        target = place.get("Destination", "")
        if role is not None and target and (said := sending_refusal(role, target)):
            raise invalid(said)


async def _found(roles: RoleFinder | None, arn: str) -> Role | None:
    if roles is None or not arn:
        return None
    try:
        return await roles.find(arn)
    except BridgeError as error:
        raise Refused("ServiceException", str(error), status=503, kind="Service") from error
