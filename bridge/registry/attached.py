"""What hangs on a function's qualifiers, declared or made: where it belongs, and the seam that keeps it."""

from collections.abc import Mapping
from typing import Protocol

Place = tuple[str, str]
"""A function's unqualified ARN, and a qualifier of it; empty: the function itself."""


class DocumentStore(Protocol):
    """Keeps documents of one kind, by place."""

    async def load(self) -> Mapping[Place, bytes]:
        """Return all of them; raises StoreError."""
        ...

    async def save(self, place: Place, document: bytes | None) -> None:
        """Write one, or delete it, durably; raises StoreError."""
        ...

    async def forget(self, function: str, qualifier: str | None) -> None:
        """Delete those of a qualifier, or, where that is None, of all of a function's."""
        ...


class NoDocuments:
    """A store that keeps nothing."""

    async def load(self) -> Mapping[Place, bytes]:
        """Return nothing."""
        return {}

    async def save(self, place: Place, document: bytes | None) -> None:
        """Forget it."""

    async def forget(self, function: str, qualifier: str | None) -> None:
        """Nothing is there."""
