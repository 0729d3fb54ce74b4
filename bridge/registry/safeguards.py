"""What functions are told of signed code and of their runtime's updates: kept and shown, and nothing acts on it."""

from collections.abc import Callable

from bridge.registry.attached import Documents, DocumentStore, NoDocuments


class Safeguards:
    """Code-signing configurations, which functions have them, and runtime management.

    Args:
        store_of: returns the store of a kind of document.
    """

    def __init__(self, store_of: Callable[[str], DocumentStore] = lambda _kind: NoDocuments()) -> None:
        self.configs = Documents(store_of("code-signing-config"))
        """By their own ARN and no qualifier."""
        self.config_of = Documents(store_of("code-signing"))
        """By function; its document names the configuration's ARN."""
        self.runtime_of = Documents(store_of("runtime-management"))
        """By function and `$LATEST` or a version."""

    async def open(self) -> None:
        """Load what was kept. Raises StoreError."""
        for each in (self.configs, self.config_of, self.runtime_of):
            await each.open()

    def functions_of(self, config: str) -> list[str]:
        """Return the ARNs of functions that have a code-signing configuration."""
        return sorted(place[0] for place, named in self.config_of.all().items() if named["arn"] == config)

    async def set_config(self, function: str, config: str) -> None:
        """Give a function, by its ARN, a code-signing configuration in place of an earlier one. Raises StoreError."""
        await self.config_of.set((function, ""), {"arn": config})

    async def forget(self, function: str, qualifier: str | None) -> None:
        """Forget what was said of a function, or of one of its versions, that is gone. Raises StoreError."""
        await self.config_of.forget(function, qualifier)
        await self.runtime_of.forget(function, qualifier)
