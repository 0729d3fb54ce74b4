"""Execution roles as Lambda's API refuses them: none to assume, or without what a configuration asks for (5.8)."""

from collections.abc import Mapping
from typing import Any, Protocol

from bridge.api.awslambda.errors import Refused, invalid
from bridge.core.errors import BridgeError
from bridge.registry.grants import network_refusal, sending_refusal
from bridge.registry.roles import NOT_ASSUMED, Role


class RoleFinder(Protocol):
    """Finds execution roles."""

    async def find(self, arn: str) -> Role:
        """Return a role by its ARN; raises BridgeError: it cannot be said what it may do."""
        ...

    def known(self, arn: str) -> Role:
        """Return a role by its ARN as far as it is known: nothing is asked."""
        ...


async def check_configuration(roles: RoleFinder | None, settings: Mapping[str, Any]) -> None:
    """Refuse the settings of a function whose role cannot be assumed, or may not do what they ask for.

    Args:
        roles: the roles there are; None: nothing is asked of any.
        settings: FunctionConfiguration's, by AWS's names, as they are to be.
    """
    role = await _found(roles, settings.get("Role", ""))
    if role is None:
        return
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
