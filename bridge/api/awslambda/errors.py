"""Errors of Lambda's API: code, status, and a body that is spelt as AWS spells it (semantics 0.1)."""

from collections.abc import Mapping
from typing import Any, Final

from bridge.api.http import Answer, line

_CAPITAL: Final = (
    "ResourceNotFoundException", "ServiceException", "EC2", "EFS", "ENI", "KMS", "Subnet", "InvalidRuntime",
    "InvalidZipFile", "InvalidSubnetID", "InvalidSecurityGroupID", "RecursiveInvocation", "SnapStart",
)  # fmt: skip
"""How codes begin whose body spells `Message`; the others spell `message`."""


class Refused(Exception):
    """An answer other than success; its text is AWS's where AWS has one."""

    def __init__(
        self,
        code: str,
        text: str,
        *,
        status: int = 400,
        kind: str = "User",
        members: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`kind` is the body's Type, empty: none; `members` stand beside the text."""
        super().__init__(text)
        self.code = code
        self.status = status
        self.kind = kind
        self.members = dict(members or {})
        self.headers = dict(headers or {})

    def answer(self, request_id: str) -> Answer:
        """Return it as a response."""
        body: dict[str, Any] = {"Type": self.kind} if self.kind else {}
        body |= self.members
        body["Message" if self.code.startswith(_CAPITAL) else "message"] = str(self)
        headers = {"x-amzn-requestid": request_id, "x-amzn-errortype": self.code}
        return Answer(self.status, line(body), headers=headers | self.headers)


def invalid(text: str) -> Refused:
    """Return the refusal of a value that has the right shape and makes no sense."""
    return Refused("InvalidParameterValueException", text)


def not_found(text: str) -> Refused:
    """Return the refusal for what is not there."""
    return Refused("ResourceNotFoundException", text, status=404)


def stale(operation: str) -> Refused:
    """Return the refusal of a change of another revision than `operation` shows."""
    text = (
        "The Revision Id provided does not match the latest Revision Id. "
        f"Call the {operation} API to retrieve the latest Revision Id"
    )
    return Refused("PreconditionFailedException", text, status=412)


def violated(value: object, member: str, constraint: str) -> Refused:
    """Return the refusal of a value whose shape is wrong: `constraint` is what AWS says after `Member must `."""
    shown = "null" if value is None else f"'{str(value)[:200]}'"
    text = (
        f"1 validation error detected: Value {shown} at '{member}' failed to satisfy constraint: "
        f"Member must {constraint}"
    )
    return Refused("ValidationException", text, kind="")
