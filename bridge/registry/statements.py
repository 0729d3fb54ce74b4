"""Statements of resource policies: made of what AddPermission is given, and asked who may do what (pure).

docs.aws.amazon.com/lambda/latest/dg/access-control-resource-based.html and semantics 5.7. Lambda's policies only ever
allow: what no statement allows is refused.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import orjson

INVOKE: Final = "lambda:InvokeFunction"
INVOKE_URL: Final = "lambda:InvokeFunctionUrl"
ANYONE: Final = "*"
OURS: Final = "bridge"
"""The service that push sources invoke as whose format is no service's of AWS."""

SOURCE_ARN: Final = "aws:sourcearn"
SOURCE_ACCOUNT: Final = "aws:sourceaccount"
PRINCIPAL_ORG: Final = "aws:principalorgid"
URL_AUTH_TYPE: Final = "lambda:functionurlauthtype"
VIA_URL: Final = "lambda:invokedviafunctionurl"

_ACCOUNT: Final = re.compile(r"[0-9]{12}\Z")
_IDENTITY: Final = re.compile(
    r"arn:aws[a-zA-Z-]*:(?:iam|sts)::[0-9]{12}:(?:root|(?:user|role|assumed-role|federated-user)/\S+)\Z"
)
_SERVICE: Final = re.compile(r"[a-z0-9][a-z0-9.-]*\.(?:amazonaws\.com(?:\.cn)?|amazon\.com)\Z")
_ROOT: Final = re.compile(r"arn:aws[a-zA-Z-]*:iam::([0-9]{12}):root\Z")

Statement = Mapping[str, Any]
"""One statement, as GetPolicy shows it."""


class BadPrincipal(ValueError):
    """Neither an account, an identity's ARN, a service nor `*`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Who wants to do what: what a policy is asked."""

    action: str
    account: str = ""
    """Of the caller, 12 digits; empty: it is a service, or nobody in particular."""
    arn: str = ""
    """Of the caller as an identity."""
    role: str = ""
    """ARN of the role that the caller acts as, which a statement may name in its place."""
    service: str = ""
    """Of a service: `s3.amazonaws.com`."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """Values of condition keys, by their names in lower case; a key that is not there fulfils no condition."""


def principal_of(text: str) -> str | dict[str, str]:
    """Return a statement's Principal for what AddPermission was given.

    Raises:
        BadPrincipal: it is nobody.
    """
    if text == ANYONE:
        return ANYONE
    if _ACCOUNT.match(text):
        return {"AWS": f"arn:aws:iam::{text}:root"}
    if _IDENTITY.match(text):
        return {"AWS": text}
    if text == OURS or _SERVICE.match(text):
        return {"Service": text}
    raise BadPrincipal(text)


def make_statement(
    sid: str, *, action: str, principal: str, resource: str, conditions: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return a statement.

    Args:
        sid: its StatementId.
        action: `lambda:InvokeFunction`, or a pattern of actions.
        principal: as `principal_of` takes it.
        resource: ARN of the function, with the qualifier whose policy it is.
        conditions: values by the names that AddPermission has for them; all of them must hold.

    Raises:
        BadPrincipal: see `principal_of`.
    """
    statement: dict[str, Any] = {
        "Sid": sid, "Effect": "Allow", "Principal": principal_of(principal), "Action": action, "Resource": resource,
    }  # fmt: skip
    given = conditions or {}
    if found := {
        operator: {key: given[member] for member, key in keys.items() if member in given}
        for operator, keys in _CONDITIONS.items()
        if not keys.keys().isdisjoint(given)
    }:
        statement["Condition"] = found
    return statement


_CONDITIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "StringEquals": {
        "SourceAccount": "AWS:SourceAccount",
        "FunctionUrlAuthType": "lambda:FunctionUrlAuthType",
        "PrincipalOrgID": "aws:PrincipalOrgID",
        "EventSourceToken": "lambda:EventSourceToken",
    },
    "ArnLike": {"SourceArn": "AWS:SourceArn"},
    "Bool": {"InvokedViaFunctionUrl": "lambda:InvokedViaFunctionUrl"},
}
"""Operator -> AddPermission's member -> the condition's key, as AWS spells it (captured-from-aws/policy-*.json)."""


def policy_document(statements: Iterable[Statement]) -> str:
    """Return the JSON text of a policy, as GetPolicy has it."""
    return orjson.dumps({"Version": "2012-10-17", "Id": "default", "Statement": list(statements)}).decode()


def allows(statements: Iterable[Statement], question: Question) -> bool:
    """Tell whether one of the statements allows it."""
    return any(_allows(statement, question) for statement in statements)


def _allows(statement: Statement, question: Question) -> bool:
    return (
        statement["Effect"] == "Allow"
        and like(statement["Action"].lower(), question.action.lower())
        and _is_meant(statement["Principal"], question)
        and all(
            _holds(operator, wanted, question.keys.get(key.lower()))
            for operator, conditions in statement.get("Condition", {}).items()
            for key, wanted in conditions.items()
        )
    )


def _is_meant(principal: str | Mapping[str, str], question: Question) -> bool:
    if isinstance(principal, str):
        return principal == ANYONE
    if "Service" in principal:
        return principal["Service"] == question.service
    wanted = principal["AWS"]
    if (root := _ROOT.match(wanted)) is not None:
        return root[1] == question.account
    return bool(wanted) and wanted in (question.arn, question.role)


def _holds(operator: str, wanted: str, value: str | None) -> bool:
    if value is None:
        return False
    if operator == "ArnLike":
        return arn_like(wanted, value)
    return wanted == value  # StringEquals; and Bool, whose values are always written as true or false


def arn_like(pattern: str, arn: str) -> bool:
    """Tell whether an ARN is like a pattern: `*` and `?` stand for any text within one of the six parts."""
    wanted, parts = pattern.split(":", 5), arn.split(":", 5)
    return len(wanted) == len(parts) and all(like(one, part) for one, part in zip(wanted, parts, strict=True))


def like(pattern: str, text: str) -> bool:
    """Tell whether a text is like a pattern: `*` stands for any text, `?` for one character."""
    return _compiled(pattern).match(text) is not None


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> re.Pattern[str]:
    first, *others = [
        "".join("." if char == "?" else re.escape(char) for char in part) for part in re.split(r"\*+", pattern)
    ]
    if not others:
        return re.compile(first + r"\Z", re.DOTALL)
    # Atomic: what lies between two stars is looked for once, or many stars would take for ever.
    middle = "".join(f"(?>.*?{part})" for part in others[:-1])
    return re.compile(f"{first}{middle}.*{others[-1]}\\Z", re.DOTALL)
