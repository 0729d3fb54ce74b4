"""The resource policies there are, by function and qualifier: what the API added, and what the file implies."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from bridge.core.function import LATEST
from bridge.registry.access import Caller
from bridge.registry.attached import Documents, DocumentStore, Place, place_arn
from bridge.registry.statements import PRINCIPAL_ORG, SOURCE_ACCOUNT, Question, Statement, allows

_NAMESPACE: Final = uuid.UUID("5c1e0b1e-3d60-5b0c-9d8e-7c6f6a1d2b43")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What was added to one qualifier."""

    statements: Sequence[Statement]
    revision_id: str


class ResourcePolicies:
    """Policies by place; a change is durable before it counts. Whoever changes them does so one at a time."""

    def __init__(self, store: DocumentStore) -> None:
        self._added = Documents(store)
        self._implied: Mapping[Place, Sequence[Statement]] = {}

    async def open(self) -> None:
        """Load what was kept. Raises StoreError."""
        await self._added.open()

    def count(self) -> int:
        """Return how many qualifiers the API added something to."""
        return len(self._added.all())

    def set_implied(self, implied: Mapping[Place, Sequence[Statement]]) -> None:
        """Take what the file's routes and sources imply, in the place of what it implied before."""
        self._implied = dict(implied)

    def added(self, place: Place) -> Policy | None:
        """Return what the API added to a policy; None: nothing."""
        found = self._added.get(place)
        return None if found is None else Policy(statements=found["statements"], revision_id=found["revision"])

    def implied(self, place: Place) -> Sequence[Statement]:
        """Return what the file implies."""
        return self._implied.get(place, ())

    def statements(self, place: Place) -> list[Statement]:
        """Return the whole policy: what the file implies, then what was added."""
        policy = self.added(place)
        return [*self._implied.get(place, ()), *(() if policy is None else policy.statements)]

    def revision(self, place: Place) -> str:
        """Return the RevisionId of a policy that is not empty."""
        if (policy := self.added(place)) is not None:
            return policy.revision_id
        return str(uuid.uuid5(_NAMESPACE, orjson.dumps([place, self._implied.get(place, ())]).decode()))

    async def put(self, place: Place, statements: Sequence[Statement]) -> None:
        """Keep these as what was added; none at all: nothing is kept. Raises StoreError."""
        policy = {"statements": list(statements), "revision": str(uuid.uuid4())}
        await self._added.set(place, policy if statements else None)

    async def forget(self, function: str, qualifier: str | None) -> None:
        """Forget what was added to a qualifier, or, where that is None, to any of a function. Raises StoreError."""
        await self._added.forget(function, qualifier)

    def allows(self, place: Place, question: Question) -> bool:
        """Tell whether a policy allows something."""
        function, qualifier = place
        return allows(self.statements((function, "" if qualifier == LATEST else qualifier)), question)

    def refusing(self, place: Place, caller: Caller, question: Question) -> str:
        """Return which kind of policy does not let a caller do something: `identity`, `resource`; empty: he may.

        Within an account the key's actions suffice, and so does a statement that names the caller. A caller of another
        account than the function's needs both (IAM User Guide, reference_policies_evaluation-logic-cross-account.html).
        """
        if caller.role is not None and caller.role.denies(question.action, place_arn(place)):
            return "identity"
        is_granted = self.allows(place, question)
        may = caller.may(question.action, place_arn(place))
        if place[0].split(":")[4] == caller.account:
            return "" if may or is_granted else "identity"
        return "" if may and is_granted else "resource" if may else "identity"


def caller_keys(caller: Caller) -> dict[str, str]:
    """Return the condition keys that a caller brings, whatever it asks for."""
    keys = {SOURCE_ACCOUNT: caller.account}
    if caller.organization:
        keys[PRINCIPAL_ORG] = caller.organization
    return keys
