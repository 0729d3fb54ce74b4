"""What IAM knows of a role: its trust policy, all that is attached to it, its permissions boundary."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bridge.aws.errors import AwsTroubleKind, trouble

POLICIES_MAX: Final = 100
"""Attached and inline ones of a role; IAM itself allows fewer."""
_PAGES_MAX: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundRole:
    """A role as IAM has it; every document is the JSON object that it is."""

    trust: Mapping[str, Any]
    policies: tuple[Mapping[str, Any], ...]
    boundary: Mapping[str, Any] | None = None
    """None: it has none."""


async def look_up(iam: Any, arn: str) -> FoundRole | None:
    """Return a role by its ARN; None: IAM has none.

    Args:
        iam: aiobotocore's client; the caller puts a deadline around the whole.
        arn: of the role; its name is what stands last.

    Raises:
        botocore's errors and those of the connection: it is not known (`errors.call_errors`).
    """
    name = arn.rpartition("/")[2]
    try:
        role = (await iam.get_role(RoleName=name))["Role"]
    except Exception as error:
        if trouble(error).kind is AwsTroubleKind.NOT_FOUND:
            return None
        raise
    if role["Arn"] != arn:
        return None  # one of that name in another account, or under another path
    boundary = role.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn")
    attached = await _pages(iam.list_attached_role_policies, "AttachedPolicies", RoleName=name)
    inline = await _pages(iam.list_role_policies, "PolicyNames", RoleName=name)
    documents = [await _managed(iam, each["PolicyArn"]) for each in attached]
    documents += [(await iam.get_role_policy(RoleName=name, PolicyName=each))["PolicyDocument"] for each in inline]
    return FoundRole(
        trust=role["AssumeRolePolicyDocument"],
        policies=tuple(documents),
        boundary=None if boundary is None else await _managed(iam, boundary),
    )


async def _managed(iam: Any, arn: str) -> Mapping[str, Any]:
    version = (await iam.get_policy(PolicyArn=arn))["Policy"]["DefaultVersionId"]
    found: Mapping[str, Any] = (await iam.get_policy_version(PolicyArn=arn, VersionId=version))["PolicyVersion"][
        "Document"
    ]
    return found


async def _pages(ask: Any, member: str, **arguments: str) -> list[Any]:
    """Return the items of all pages of a list."""
    found: list[Any] = []
    marker: dict[str, str] = {}
    for _ in range(_PAGES_MAX):
        answer = await ask(**arguments, **marker)
        found += answer[member]
        if not answer.get("IsTruncated"):
            break
        marker = {"Marker": answer["Marker"]}
    return found[:POLICIES_MAX]
