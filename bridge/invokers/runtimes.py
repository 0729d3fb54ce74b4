"""Picks where a version runs: in a worker of ours, or behind Lambda's API."""

from collections.abc import Callable, Collection

from bridge.core.errors import InvokeError, Unrunnable
from bridge.core.function import FunctionVersion
from bridge.core.invocation import Invocation, InvocationResult
from bridge.core.ports import Runtime
from bridge.invokers.remote import RemoteFunctions
from bridge.registry import interpreters, virtualenvs


class Runtimes:
    """`ports.Runtime` over both.

    Args:
        local: the workers.
        remote: the functions elsewhere.
    """

    def __init__(self, *, local: Runtime, remote: RemoteFunctions) -> None:
        self._local = local
        self._remote = remote

    def _of(self, version: FunctionVersion) -> Runtime:
        return self._local if version.remote is None else self._remote

    async def invoke(self, version: FunctionVersion, invocation: Invocation) -> InvocationResult:
        """Run it where it belongs; raises InvokeError when it was not accepted."""
        if version.unrunnable:
            code, _, text = version.unrunnable.partition(": ")
            raise Unrunnable(text, code=code)
        return await self._of(version).invoke(version, invocation)

    def free_slots(self, version: FunctionVersion, *, enough: int | None = None) -> int:
        """How many invocations of it could start now."""
        return self._of(version).free_slots(version, enough=enough)

    def on_free(self, callback: Callable[[], None]) -> None:
        """Call back whenever a slot of either may have become free."""
        self._local.on_free(callback)
        self._remote.on_free(callback)

    def retire(self, name: str, *, keep_revision: str | None, also_keep: Collection[str] = ()) -> None:
        """End what belongs to other revisions of a function."""
        self._local.retire(name, keep_revision=keep_revision, also_keep=also_keep)
        self._remote.retire(name, keep_revision=keep_revision, also_keep=also_keep)

    def hindrance(self, version: FunctionVersion) -> InvokeError | None:
        """Return why nothing of it starts now, whatever the limits allow; workers have no such reason."""
        return None if version.remote is None else self._remote.hindrance(version)

    def facts(self, versions: list[FunctionVersion]) -> list[tuple[str, bool, str]]:
        """Return what `doctor` says of what runs them, here and elsewhere: name, whether all is well, more about it."""
        return [*interpreters.facts(versions), *virtualenvs.facts(versions), *self._remote.facts(versions)]
