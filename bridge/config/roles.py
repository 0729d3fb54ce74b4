"""`[roles]` and `[roles.X]`: the execution roles that a file declares, and what the others may do."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

from pydantic import AfterValidator, ConfigDict, Field

from bridge.config.mistakes import Loc, near, plain
from bridge.config.outcomes import targets_of
from bridge.config.section import Name, Section, listed
from bridge.config.streams import connection_of_aws
from bridge.config.tree import table, tables, text
from bridge.config.values import refuse
from bridge.core.function import ACCOUNT_DEFAULT
from bridge.registry.grants import sending_refusal
from bridge.registry.managed_policies import ACTIONS, managed_actions
from bridge.registry.roles import MADE_UP, Role, managed_statement, statement_fault

if TYPE_CHECKING:
    from bridge.config.settings import Settings

Finding: TypeAlias = tuple[Loc, str]
ROLE_PATTERN: Final = r"^([a-zA-Z0-9_-]{1,64}|arn:aws[a-z-]*:iam::[0-9]{12}:role/[a-zA-Z_0-9+=,.@/-]{1,576})?$"
"""A `[roles.X]`, or an ARN (API_CreateFunction, Role)."""
_OF_ROLES: Final = ("unknown", "connection")
_ARN: Final = "arn:"


def _checked_policy(name: str) -> str:
    if managed_actions(name) is None:
        refuse("no managed policy of execution roles" + (near(name, ACTIONS) or f"; known are {', '.join(ACTIONS)}"))
    return name


def _checked_statement(statement: dict[str, Any]) -> dict[str, Any]:
    if fault := statement_fault(statement):
        refuse(fault if fault.isprintable() else ascii(fault))  # it names a member as it is written
    return statement


class RoleSettings(Section):
    """One execution role: what a function, and whoever polls and sends for it, may do."""

    managed: tuple[Annotated[str, AfterValidator(_checked_policy)], ...] = listed(
        "AWS's managed policies by name, such as AWSLambdaSQSQueueExecutionRole.", max_length=20
    )
    statements: tuple[Annotated[dict[str, Any], AfterValidator(_checked_statement)], ...] = listed(
        "Statements as IAM has them: Effect, Action or NotAction, Resource or NotResource, Condition.", max_length=100
    )


class RolesSettings(Section):
    """`[roles]`: the roles of a file by name, and what holds for all others."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[Name, RoleSettings]

    unknown: Literal["allow", "deny"] | None = Field(
        default=None,
        description="What roles may do that are not declared, where no connection looks them up; left out: allow on "
        "loopback, and where no role is declared, else deny.",
    )
    connection: str = Field(
        default="",
        max_length=64,
        description="[connections.X] of type aws by which other roles are looked up (IAM), and all are assumed (STS).",
    )

    @property
    def declared(self) -> Mapping[str, RoleSettings]:
        """The roles of the file, by name."""
        return self.__pydantic_extra__


def role_arn(written: str, account: str) -> str:
    """Return the ARN of what a function's `role` names; empty: it has none."""
    return written if not written or written.startswith(_ARN) else f"arn:aws:iam::{account}:role/{written}"


def declared_roles(settings: "Settings") -> dict[str, Role]:
    """Return the roles of a file by their ARN."""
    found = [_role(name, role, settings.account) for name, role in settings.roles.declared.items()]
    return {role.arn: role for role in found}


def _role(name: str, role: RoleSettings, account: str) -> Role:
    statements = (*(managed_statement(policy) for policy in role.managed), *role.statements)
    return Role(arn=role_arn(name, account), statements=statements)


def unknown_may(settings: "Settings") -> bool:
    """Tell whether roles that are neither declared nor found are unrestricted."""
    roles = settings.roles
    if roles.unknown is not None:
        return roles.unknown == "allow"
    return settings.listen.api.is_loopback or not roles.declared


def mistakes(data: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield roles that are not there, and targets that the role of their function may not write to."""
    account = text(data, "account", ACCOUNT_DEFAULT)
    roles = {name: each for name, each in tables(data, "roles") if name not in _OF_ROLES}
    if connection := text(table(data, "roles"), "connection"):
        yield from connection_of_aws(("roles", "connection"), connection, data)
        if text(table(table(data, "connections"), connection), "role_arn"):
            yield ("roles", "connection"), f"connections.{plain(connection)} has a role_arn itself: name one without"
    if MADE_UP in roles:
        yield ("roles", MADE_UP), "is what functions show that have no role; call it something else"
    for name, function in tables(data, "functions"):
        written = text(function, "role")
        found = roles.get(written.rpartition("/")[2] if written == role_arn(_last(written), account) else written)
        if written and found is None and not written.startswith(_ARN):
            hint = near(written, roles) or "; write [roles.X], or a role's ARN"
            yield ("functions", name, "role"), f"no role {plain(written)} here{hint}"
        if found is not None and (role := _read(written, found, account)) is not None:
            for loc, target in targets_of(name, function):
                if said := _sending_refusal(role, target):
                    yield loc, said


def _last(written: str) -> str:
    return written.rpartition("/")[2]


def _read(name: str, written: Mapping[str, Any], account: str) -> Role | None:
    """Return a role of the file as far as it is one; None: what is wrong with it is told by its own section."""
    try:
        return _role(name, RoleSettings.model_validate(written), account)
    except ValueError:
        return None


def _sending_refusal(role: Role, target: str) -> str:
    try:
        return sending_refusal(role, target)
    except ValueError:  # no ARN: told by its own section
        return ""
