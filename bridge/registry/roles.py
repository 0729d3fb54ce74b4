"""Execution roles: what a function, and whoever polls and sends for it, may do on which resource (pure).

docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html: a statement that denies counts before
every one that allows, and what none allows is denied. semantics 5.8 has the words of refusals.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bridge.core.arn import parse_arn
from bridge.registry.managed_policies import managed_actions
from bridge.registry.statements import arn_like, like

LAMBDA: Final = "lambda.amazonaws.com"
"""Who must be trusted by an execution role."""
NOT_ASSUMED: Final = "The role defined for the function cannot be assumed by Lambda."
EVERYTHING: Final = ({"Effect": "Allow", "Action": "*", "Resource": "*"},)
MADE_UP: Final = "bridge"
"""The role that functions show which have none, and that `bridge deploy` gives: no file may declare it."""
_MEMBERS: Final = frozenset({"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"})
_PLAIN: Final = frozenset({"stringequals", "arnequals", "bool"})
_LIKE: Final = frozenset({"stringlike", "arnlike"})

Statement = Mapping[str, Any]
"""One statement of an identity-based policy, by AWS's names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """An execution role, as far as it is known."""

    arn: str
    statements: Sequence[Statement] = ()
    boundary: Sequence[Statement] | None = None
    """Statements of its permissions boundary, which must allow it too; None: it has none."""
    is_known: bool = True
    """False: neither declared nor found; its statements are what `roles.unknown` says."""
    is_trusting: bool = True
    """Its trust policy lets Lambda assume it."""

    @property
    def name(self) -> str:
        """What stands last in its ARN."""
        return self.arn.rpartition("/")[2]

    @property
    def account(self) -> str:
        """12 digits."""
        return parse_arn(self.arn).account

    def allows(self, action: str, resource: str) -> bool:
        """Tell whether it allows an action on a resource's ARN (`*`: on any, such as a list of all)."""
        keys = {"aws:principalarn": self.arn, "aws:principalaccount": self.account}
        asked = (self.statements,) if self.boundary is None else (self.statements, self.boundary)
        return all(_allows(statements, action, resource, keys) for statements in asked)

    def may_within(self, action: str, prefix: str) -> bool:
        """Tell whether it may allow an action on something whose ARN begins so, and does not deny it on all of that."""
        asked = (self.statements,) if self.boundary is None else (self.statements, self.boundary)
        return all(
            any(each["Effect"] == "Allow" and _may_begin(each, action, prefix) for each in statements)
            for statements in asked
        ) and not self.denies(action, f"{prefix}*")

    def denies(self, action: str, resource: str) -> bool:
        """Tell whether a statement of it denies an action on a resource, whatever else allows it."""
        keys = {"aws:principalarn": self.arn, "aws:principalaccount": self.account}
        found = (*self.statements, *(self.boundary or ()))
        return any(each["Effect"] == "Deny" and _applies(each, action, resource, keys) for each in found)

    def reaches(self, service: str) -> bool:
        """Tell whether a statement of it allows an action of a service (`lambda`), on whatever."""
        return any(
            each["Effect"] == "Allow"
            and ("NotAction" in each or any(like(_service(action), service) for action in _texts(each["Action"])))
            for each in self.statements
        )

    def denial(self, action: str, resource: str, *, session: str) -> str:
        """Return AWS's words for what it does not allow to a function, `session`."""
        principal = f"arn:aws:sts::{self.account}:assumed-role/{self.name}/{session}"
        return (
            f"User: {principal} is not authorized to perform: {action} on resource: {resource} because no "
            f"identity-based policy allows the {action} action"
        )


def made_up(account: str) -> str:
    """Return the ARN of the role that functions show which have none."""
    return f"arn:aws:iam::{account}:role/{MADE_UP}"


def is_made_up(arn: str) -> bool:
    """Tell whether an ARN is that of the role that functions show which have none."""
    return arn.endswith(f":role/{MADE_UP}")


def unrestricted(arn: str) -> Role:
    """Return a role of which nothing is known, and that may do everything."""
    return Role(arn=arn, statements=EVERYTHING, is_known=False)


def forbidden(arn: str) -> Role:
    """Return a role of which nothing is known, and that may do nothing: Lambda cannot assume it."""
    return Role(arn=arn, is_known=False, is_trusting=False)


def managed_statement(policy: str) -> Statement:
    """Return the statement of a managed policy, by its name or ARN. Raises KeyError: it is not known."""
    actions = managed_actions(policy)
    if actions is None:
        raise KeyError(policy)
    return {"Effect": "Allow", "Action": list(actions), "Resource": "*"}


def statements_of(document: Mapping[str, Any]) -> tuple[Statement, ...]:
    """Return the statements of a policy document.

    Raises:
        ValueError: one is not what a statement may be.
    """
    found = document.get("Statement", ())
    made = tuple(found) if isinstance(found, list) else (found,)
    for each in made:
        if fault := statement_fault(each):
            raise ValueError(fault)
    return made


def statement_fault(statement: object) -> str:
    """Return what keeps a statement from being one; empty: nothing."""
    if not isinstance(statement, Mapping):
        return "a statement is a table"
    if unknown := sorted(statement.keys() - _MEMBERS):
        return f"{unknown[0]}: not a member of a role's statement"
    if statement.get("Effect") not in ("Allow", "Deny"):
        return "Effect must be Allow or Deny"
    for one in ("Action", "Resource"):
        named = [name for name in (one, f"Not{one}") if name in statement]
        if len(named) != 1:
            return f"either {one} or Not{one}"
        if not _texts(statement[named[0]]):
            return f"{named[0]} must be a text or a list of texts"
    condition = statement.get("Condition", {})
    if not isinstance(condition, Mapping) or not all(isinstance(each, Mapping) for each in condition.values()):
        return "Condition must be tables of keys by operator"
    return ""


def is_trusting(document: Mapping[str, Any], service: str = LAMBDA) -> bool:
    """Tell whether a trust policy lets a service assume its role."""
    found = document.get("Statement", ())
    applying = [
        each.get("Effect")
        for each in (found if isinstance(found, list) else [found])
        if isinstance(each, Mapping)
        and any(like(pattern.lower(), "sts:assumerole") for pattern in _texts(each.get("Action", ())))
        and _is_principal(each.get("Principal"), service)
    ]
    return "Allow" in applying and "Deny" not in applying


def _is_principal(principal: object, service: str) -> bool:
    if isinstance(principal, Mapping):
        return service in _texts(principal.get("Service", ()))
    return principal == "*"


def _service(action: str) -> str:
    """Return the service in a pattern of actions: all of them in `*`."""
    return action.lower().partition(":")[0]


def _allows(statements: Iterable[Statement], action: str, resource: str, keys: Mapping[str, str]) -> bool:
    applying = [each["Effect"] for each in statements if _applies(each, action, resource, keys)]
    return "Allow" in applying and "Deny" not in applying


def _applies(statement: Statement, action: str, resource: str, keys: Mapping[str, str]) -> bool:
    return (
        _names(statement, "Action", action, _same_action)
        and _names(statement, "Resource", resource, _same_resource)
        and all(
            _holds(operator, key, wanted, keys, unless_known=statement["Effect"] == "Deny")
            for operator, conditions in statement.get("Condition", {}).items()
            for key, wanted in conditions.items()
        )
    )


def _names(statement: Statement, member: str, value: str, same: Any) -> bool:
    if member in statement:
        return any(same(pattern, value) for pattern in _texts(statement[member]))
    return not any(same(pattern, value) for pattern in _texts(statement[f"Not{member}"]))


def _may_begin(statement: Statement, action: str, prefix: str) -> bool:
    """Tell whether a statement may be of an action on something whose ARN begins so."""
    if not _names(statement, "Action", action, _same_action):
        return False
    if "Resource" not in statement:
        return True
    firsts = ((pattern, re.split(r"[*?]", pattern, maxsplit=1)[0]) for pattern in _texts(statement["Resource"]))
    return any(first.startswith(prefix) or (prefix.startswith(first) and first != pattern) for pattern, first in firsts)


def _same_action(pattern: str, action: str) -> bool:
    return like(pattern.lower(), action.lower())


def _same_resource(pattern: str, resource: str) -> bool:
    return pattern == "*" or arn_like(pattern, resource)


def _holds(operator: str, key: str, wanted: object, keys: Mapping[str, str], *, unless_known: bool) -> bool:
    """Tell whether a condition holds; with an operator that is not known here: `unless_known`."""
    named = operator.lower()
    if named not in _PLAIN | _LIKE:
        return unless_known
    value = keys.get(key.lower())
    if value is None:
        return False  # as on AWS: what is not there is like nothing
    return value in _texts(wanted) if named in _PLAIN else any(like(pattern, value) for pattern in _texts(wanted))


def _texts(value: object) -> tuple[str, ...]:
    """Return a text, or a list of texts, as texts; nothing where it is something else."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, Iterable) and not isinstance(value, Mapping):
        found = tuple(value)
        return found if all(isinstance(each, str) for each in found) else ()
    return ()
