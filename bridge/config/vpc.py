"""`vpc_config` and `network` of a function: the network that its workers have."""

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import AfterValidator, Field, ValidationInfo

from bridge.config.section import Section, listed
from bridge.config.values import refuse
from bridge.core import network
from bridge.core.network import VpcConfig

NetworkName: TypeAlias = Literal["auto", "vpc", "none"]
NETWORK_DESCRIPTION: Final = (
    '"auto": one that functions of the same vpc_config share where that can be had, else the machine\'s; "vpc": never '
    'the machine\'s; "none": none at all.'
)


class VpcSettings(Section):
    """`vpc_config`: subnets and security groups (API_VpcConfig); both or neither."""

    subnet_ids: tuple[Annotated[str, Field(max_length=64)], ...] = listed(
        "Ids of 1..16 subnets: subnet- and 8 to 17 of 0-9 a-f.", max_length=network.SUBNETS_MAX
    )
    security_group_ids: tuple[Annotated[str, Field(max_length=64)], ...] = listed(
        "Ids of 1..5 security groups: sg- and 8 to 17 of 0-9 a-f.", max_length=network.GROUPS_MAX
    )
    ipv6_allowed_for_dual_stack: bool = Field(default=False, description="Kept and shown; changes nothing here.")


def _checked_vpc(settings: VpcSettings | None) -> VpcSettings | None:
    if settings is None:
        return None
    if bool(settings.subnet_ids) != bool(settings.security_group_ids):
        refuse("subnet_ids and security_group_ids belong together: give both, or leave both empty")
    for subnet in settings.subnet_ids:
        if network.subnet_mistake(subnet):
            refuse(f"{subnet!r} is no id of a subnet: subnet- and 8 to 17 of 0-9 a-f")
    for group in settings.security_group_ids:
        if network.group_mistake(group):
            refuse(f"{group!r} is no id of a security group: sg- and 8 to 17 of 0-9 a-f")
    return settings


VpcValue: TypeAlias = Annotated[VpcSettings | None, AfterValidator(_checked_vpc)]


def _checked_network(name: str, info: ValidationInfo) -> str:
    if "vpc_config" not in info.data:
        return name  # it has mistakes of its own
    has_vpc = vpc_value(info.data["vpc_config"]) is not None
    if name == network.VPC and not has_vpc:
        refuse('"vpc" is for functions with a vpc_config')
    if name == network.NONE and has_vpc:
        refuse('"none" and a vpc_config exclude each other')
    return name


NetworkValue: TypeAlias = Annotated[NetworkName, AfterValidator(_checked_network)]


def vpc_value(settings: VpcSettings | None) -> VpcConfig | None:
    """Return what a function is made of; None: it has no `vpc_config`, or an empty one."""
    if settings is None or not settings.subnet_ids:
        return None
    return VpcConfig(
        subnet_ids=settings.subnet_ids,
        security_group_ids=settings.security_group_ids,
        ipv6_allowed_for_dual_stack=settings.ipv6_allowed_for_dual_stack,
    )
