"""The network that a function asks for: `VpcConfig` as Lambda has it, and the ids of what AWS would make of it."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

SUBNETS_MAX: Final = 16
GROUPS_MAX: Final = 5
SUBNET_PATTERN: Final = re.compile(r"subnet-[0-9a-f]{8,17}\Z")
GROUP_PATTERN: Final = re.compile(r"sg-[0-9a-f]{8,17}\Z")
NOT_BOTH: Final = "SubnetIds and SecurityIds must coexist or be both empty list."
"""AWS's words for subnets without security groups, and the other way round."""
AUTO: Final = "auto"
"""A namespace for functions with a `vpc_config` where one can be had, else the machine's network."""
VPC: Final = "vpc"
"""The same, but refused where none can be had."""
NONE: Final = "none"
"""No network at all; refused where that cannot be had."""
_INTERFACE_GB: Final = 3
"""Of memory that share one address: the most a function could have when Lambda's rule was written (semantics 5.10)."""
_MB_PER_GB: Final = 1024
_ID_CHARS: Final = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class VpcConfig:
    """Subnets and security groups of a function; never one without the other."""

    subnet_ids: tuple[str, ...]
    """1..16."""
    security_group_ids: tuple[str, ...]
    """1..5."""
    ipv6_allowed_for_dual_stack: bool = False
    """Kept and shown."""

    @classmethod
    def of(cls, members: Mapping[str, Any]) -> "VpcConfig | None":
        """Return what Lambda's API keeps under VpcConfig; None where it names no subnets."""
        if not members.get("SubnetIds"):
            return None
        return cls(
            subnet_ids=tuple(members["SubnetIds"]),
            security_group_ids=tuple(members["SecurityGroupIds"]),
            ipv6_allowed_for_dual_stack=members.get("Ipv6AllowedForDualStack", False),
        )

    def members(self) -> dict[str, Any]:
        """Return it by AWS's names, as Lambda's API keeps it: VpcConfigResponse without its VpcId."""
        return {
            "SubnetIds": list(self.subnet_ids),
            "SecurityGroupIds": list(self.security_group_ids),
            "Ipv6AllowedForDualStack": self.ipv6_allowed_for_dual_stack,
        }

    def set_in(self, space: str) -> str:
        """Return what functions share a network by: the same subnets and groups in one account and region.

        Args:
            space: account and region, as text.
        """
        return f"{space} {_listed(self.subnet_ids)} {_listed(self.security_group_ids)}"


def subnet_mistake(subnet: str) -> str:
    """Return AWS's words for what is no subnet's id; empty: it is one."""
    if SUBNET_PATTERN.match(subnet):
        return ""
    return (
        "Error occurred while DescribeSubnets. EC2 Error Code: InvalidSubnetID.NotFound. "
        f"EC2 Error Message: The subnet ID '{subnet[:64]}' does not exist"
    )


def group_mistake(group: str) -> str:
    """Return AWS's words for what is no security group's id; empty: it is one."""
    if GROUP_PATTERN.match(group):
        return ""
    return (
        "Error occurred while DescribeSecurityGroups. EC2 Error Code: InvalidGroup.NotFound. "
        f"EC2 Error Message: The security group '{group[:64]}' does not exist"
    )


def vpc_id(space: str) -> str:
    """Return VpcId: one for each account and region, the same after a restart."""
    return f"vpc-{_id(space)}"


def interfaces(vpc: VpcConfig, space: str) -> dict[str, str]:
    """Return the id of the interface in each subnet: functions with the same subnet and groups share it."""
    groups = _listed(vpc.security_group_ids)
    return {subnet: f"eni-{_id(f'{space} {subnet} {groups}')}" for subnet in dict.fromkeys(vpc.subnet_ids)}


def projected_addresses(peak: int, memory_mb: int) -> int:
    """Return how many addresses of its subnets a function takes: peak x memory / 3 GB, rounded up (semantics 5.10)."""
    return -(-peak * memory_mb // (_INTERFACE_GB * _MB_PER_GB))


def _listed(ids: tuple[str, ...]) -> str:
    return ",".join(sorted(set(ids)))


def _id(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_ID_CHARS]
