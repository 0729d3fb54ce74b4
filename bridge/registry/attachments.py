"""All that hangs on functions and is no part of them: policies, URLs, loops, safeguards; forgotten as one."""

from collections.abc import Callable

from bridge.core.spaces import HOME_DEFAULT, Space
from bridge.registry.attached import DocumentStore, NoDocuments
from bridge.registry.policies import ResourcePolicies
from bridge.registry.recursion import Recursion
from bridge.registry.safeguards import Safeguards
from bridge.registry.urls import FunctionUrls


class Attachments:
    """What hangs on functions, declared or made, by its kind. A change is durable before it counts.

    Args:
        store_of: returns the store of a kind of document; left out: nothing is kept.
        home: the file's name space.
    """

    def __init__(
        self,
        store_of: Callable[[str], DocumentStore] = lambda _kind: NoDocuments(),
        home: Space = HOME_DEFAULT,
    ) -> None:
        self.policies = ResourcePolicies(store_of("policy"))
        """Resource policies."""
        self.urls = FunctionUrls(store_of("url"), home)
        """Function URLs."""
        self.recursion = Recursion(store_of("recursion"), arn_of=home.arn)
        """Which functions may call themselves in a loop, and the chains of what runs."""
        self.safeguards = Safeguards(store_of)
        """Code signing and runtime management, as they were asked for."""
        self._kinds = (self.policies, self.urls, self.recursion, self.safeguards)

    async def open(self) -> None:
        """Load what was kept, in the place of what was known. Raises StoreError."""
        for kind in self._kinds:
            await kind.open()

    async def forget(self, function: str, qualifier: str | None) -> None:
        """Forget what hangs on a qualifier, or, where that is None, on all of a function, by its ARN.

        Raises:
            StoreError: some of it may be left.
        """
        for kind in self._kinds:
            await kind.forget(function, qualifier)

    def counts(self) -> dict[str, int]:
        """Return how many there are, by kind; loops, code signing and runtime management are settings of functions."""
        safeguards = self.safeguards
        return {
            "policies": self.policies.count(),
            "URLs": self.urls.count(),
            "code-signing configurations": len(safeguards.configs.all()),
            "function settings": sum(
                len(each.all()) for each in (self.recursion.modes, safeguards.config_of, safeguards.runtime_of)
            ),
        }
