"""What hangs on a function's qualifiers, declared or made: where it belongs, and the seam that keeps it."""

from collections.abc import Mapping
from typing import Any, Protocol

import orjson

from bridge.core.errors import StoreCorrupt

Place = tuple[str, str]
"""A function's unqualified ARN, and a qualifier of it; empty: the function itself."""


def place_arn(place: Place) -> str:
    """Return the ARN that names a place: qualified, where it is a qualifier's."""
    function, qualifier = place
    return f"{function}:{qualifier}" if qualifier else function


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


class Documents:
    """JSON documents of one kind, in memory and in their store: a change is durable before it counts."""

    def __init__(self, store: DocumentStore) -> None:
        self._store = store
        self._found: dict[Place, Mapping[str, Any]] = {}

    async def open(self) -> None:
        """Load what was kept, in the place of what was known.

        Raises:
            StoreCorrupt: a document is not what was written.
            StoreError: they cannot be read.
        """
        kept = await self._store.load()
        try:
            self._found = {place: orjson.loads(document) for place, document in kept.items()}
        except ValueError as error:
            raise StoreCorrupt(f"what was kept of a function cannot be read: {error}") from error

    def get(self, place: Place) -> Mapping[str, Any] | None:
        """Return one; None: there is none."""
        return self._found.get(place)

    def all(self) -> Mapping[Place, Mapping[str, Any]]:
        """Return all of them."""
        return self._found

    async def set(self, place: Place, document: Mapping[str, Any] | None) -> None:
        """Write one, or delete it; one that is not there is fine. Raises StoreError."""
        if document is None and place not in self._found:
            return
        await self._store.save(place, None if document is None else orjson.dumps(document))
        if document is None:
            self._found.pop(place, None)
        else:
            self._found[place] = document

    async def forget(self, function: str, qualifier: str | None) -> None:
        """Delete what hangs on a qualifier, or, where that is None, on all of a function. Raises StoreError."""
        gone = [place for place in self._found if place[0] == function and qualifier in (None, place[1])]
        if gone:
            await self._store.forget(function, qualifier)
        for place in gone:
            del self._found[place]
