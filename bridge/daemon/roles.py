"""The execution roles there are: those of the file, those that IAM knows, and what holds for all others."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from bridge.aws.errors import call_errors, trouble
from bridge.aws.iam import FoundRole, look_up
from bridge.config.roles import declared_roles, unknown_may
from bridge.config.settings import Settings
from bridge.core.errors import BridgeError, FunctionNotFound
from bridge.core.function import Function, FunctionVersion, split_target
from bridge.core.ports import Clock
from bridge.daemon.aws import AwsReach
from bridge.registry.catalog import FunctionCatalog
from bridge.registry.roles import Role, forbidden, is_made_up, is_trusting, statements_of, unrestricted

log = structlog.get_logger("bridge.roles")

KNOWN_S: Final = 300.0
"""What IAM says of a role is believed so long."""
ASK_AGAIN_S: Final = 10.0
"""IAM that did not answer is asked again after it."""
LOOK_UP_MAX_S: Final = 20.0
OPEN_MAX_S: Final = 10.0
"""How long a start waits for IAM; what is not known by then is not allowed until it is."""
ROLES_MAX: Final = 1000
"""Looked-up roles that are remembered; the oldest are forgotten first."""
_LOOK_S: Final = 5.0


class RoleUnknown(BridgeError):
    """IAM did not say what a role may do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Looked:
    role: Role
    due_at: float
    """Monotonic."""
    trouble: str = ""


class Roles:
    """Finds what an execution role may do.

    Args:
        settings: later ones go through `configure`.
        aws: where IAM is reached, by `roles.connection`.
        catalog: the functions there are, whose roles are kept fresh.
        clock: the daemon's.
    """

    def __init__(self, settings: Settings, *, aws: AwsReach, catalog: FunctionCatalog, clock: Clock) -> None:
        self._aws = aws
        self._catalog = catalog
        self._clock = clock
        self._looked: dict[str, _Looked] = {}
        self._warned: set[str] = set()
        self._lock = asyncio.Lock()
        self.changed: Callable[[], None] = lambda: None
        """Told when roles of functions have become others at IAM."""
        self.replace: Callable[[str], None] = lambda _name: None
        """Told of each function whose role has become another one: what its workers were given for it ends."""
        self._set(settings)

    def _set(self, settings: Settings) -> None:
        self._declared = declared_roles(settings)
        self._may = unknown_may(settings)
        self.connection = settings.roles.connection
        """Name of the connection that looks up and assumes; empty: there is none."""

    def configure(self, settings: Settings) -> None:
        """Take the roles of a new file."""
        before, connection = {arn: self.known(arn) for arn in self.used()}, self.connection
        self._set(settings)
        if self.connection != connection:
            self._looked.clear()
        self._replace_of({arn for arn, role in before.items() if self.known(arn) != role})

    async def open(self) -> None:
        """Look up the roles of the functions there are, as far as IAM answers within `OPEN_MAX_S`."""
        try:
            async with asyncio.timeout(OPEN_MAX_S):
                await self._refresh()
        except TimeoutError:
            log.warning("roles_not_looked_up", reason="no answer in time")

    async def run(self) -> None:
        """Keep what IAM says of the functions' roles fresh, for ever."""
        while True:
            await self._clock.sleep(_LOOK_S)
            await self._refresh()

    async def _refresh(self) -> None:
        """Ask IAM what is due."""
        if self.connection:
            for arn in sorted(self.used() - self._declared.keys()):
                await self._look_up(arn)

    def _replace_of(self, arns: set[str]) -> None:
        for function in self._catalog.functions() if arns else ():
            if not arns.isdisjoint(_roles(function)):
                self.replace(function.name)

    def used(self) -> frozenset[str]:
        """Return the ARNs of the roles of all functions."""
        return frozenset(role for function in self._catalog.functions() for role in _roles(function))

    # --- looking --------------------------------------------------------------------------------

    def known(self, arn: str) -> Role:
        """Return a role by its ARN, as far as it is known now: nothing is asked."""
        if (role := self._declared.get(arn)) is not None:
            return role
        if self.connection:
            looked = self._looked.get(arn)
            return looked.role if looked is not None else forbidden(arn)
        self._warn(arn)
        return unrestricted(arn) if self._may else forbidden(arn)

    async def find(self, arn: str) -> Role:
        """Return a role by its ARN, looked up where that is due.

        Raises:
            RoleUnknown: IAM does not answer, and has not before.
        """
        if arn not in self._declared and self.connection:
            looked = self._looked.get(arn)
            if looked is None or not (looked.trouble and looked.role.is_known):  # else what it said last counts
                await self._look_up(arn)
                looked = self._looked[arn]
            if looked.trouble and not looked.role.is_known:
                raise RoleUnknown(looked.trouble)
        return self.known(arn)

    def of_version(self, version: FunctionVersion) -> Role | None:
        """Return the role of a version, None where it has none: nothing is asked of it."""
        return self.known(version.role) if version.role else None

    def of_target(self, target: str) -> Role | None:
        """Return the role of a function by `name[:qualifier]`; None: it has none, or there is no such function."""
        found = self.version_of(target)
        return None if found is None else self.of_version(found)

    async def find_of_target(self, target: str) -> Role | None:
        """Return the role of a function, looked up where that is due. Raises RoleUnknown."""
        found = self.version_of(target)
        return await self.find(found.role) if found is not None and found.role else None

    def arn_of_target(self, target: str) -> str | None:
        """Return the ARN of a function's role, empty where it has none; None: there is no such function."""
        found = self.version_of(target)
        return None if found is None else found.role

    def version_of(self, target: str) -> FunctionVersion | None:
        """Return what a target names; None: nothing."""
        name, qualifier = split_target(target)
        try:
            return self._catalog.get(name).version(qualifier)
        except FunctionNotFound:
            return None

    def unknown(self) -> list[str]:
        """Return the ARNs of functions' roles that are neither declared nor found, in order."""
        return [arn for arn in sorted(self.used()) if not is_made_up(arn) and not self.known(arn).is_known]

    def troubles(self) -> list[str]:
        """Return what keeps roles from being known."""
        return [looked.trouble for _, looked in sorted(self._looked.items()) if looked.trouble]

    def facts(self) -> list[tuple[str, bool, str]]:
        """Return what `bridge doctor` says of roles; nothing where no function has one."""
        used = [arn for arn in self.used() if not is_made_up(arn)]
        if not used:
            return []
        unknown = self.unknown()
        if not unknown:
            return [("roles", True, f"{len(used)} in use, all of them known")]
        may = self._may and not self.connection
        what = f"unknown, may do {'everything' if may else 'nothing'}: {', '.join(unknown)}; declare them ([roles.X])"
        return [("roles", may, what)]

    def _warn(self, arn: str) -> None:
        if arn in self._warned or is_made_up(arn) or len(self._warned) >= ROLES_MAX:
            return
        self._warned.add(arn)
        may = "everything" if self._may else "nothing"
        log.warning("role_unknown", role=arn, may=may, hint="declare it: [roles.X]")

    # --- IAM ------------------------------------------------------------------------------------

    async def _look_up(self, arn: str) -> None:
        """Ask IAM for a role where that is due; tell others when it has become another one."""
        async with self._lock:
            looked = self._looked.get(arn)
            now = self._clock.monotonic()
            if looked is not None and now < looked.due_at:
                return
            try:
                role, failure = await self._ask(arn), ""
            except TimeoutError:
                role, failure = None, f"role {arn}: IAM did not answer within {LOOK_UP_MAX_S:.0f} s"
            except call_errors() as error:
                role, failure = None, f"role {arn}: {trouble(error).message}"
            except (BridgeError, ValueError, KeyError, TypeError, AttributeError) as error:  # no document of a role
                role, failure = None, f"role {arn}: {error}"
            if failure:
                log.warning("role_not_looked_up", role=arn, reason=failure)
                role = looked.role if looked is not None else forbidden(arn)
            assert role is not None
            before = self.known(arn)
            self._looked.pop(arn, None)
            wait_s = ASK_AGAIN_S if failure else KNOWN_S
            self._looked[arn] = _Looked(role=role, due_at=self._clock.monotonic() + wait_s, trouble=failure)
            while len(self._looked) > ROLES_MAX:
                del self._looked[next(iter(self._looked))]
            if self.known(arn) != before:
                self._replace_of({arn})
                self.changed()

    async def _ask(self, arn: str) -> Role:
        connection = self._aws.connection(self.connection)
        async with asyncio.timeout(LOOK_UP_MAX_S):
            iam: Any = await self._aws.clients.client(connection, "iam", read_timeout_s=LOOK_UP_MAX_S, pool=4)
            found = await look_up(iam, arn)
        return forbidden(arn) if found is None else _read(arn, found)


def _roles(function: Function) -> frozenset[str]:
    return frozenset(each.role for each in (function.latest, *function.versions.values()) if each.role)


def _read(arn: str, found: FoundRole) -> Role:
    documents: Iterable[Mapping[str, Any]] = found.policies
    return Role(
        arn=arn,
        statements=tuple(statement for document in documents for statement in statements_of(document)),
        boundary=None if found.boundary is None else statements_of(found.boundary),
        is_trusting=is_trusting(found.trust),
    )
