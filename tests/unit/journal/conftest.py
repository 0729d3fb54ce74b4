"""What the journal's tests share."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.harness import wait_until


@pytest.fixture
def threads_rest(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Awaitable[object]]:
    """Return `await threads_rest()`: waits until nothing works in a thread, which knows no virtual time."""
    working = 0
    to_thread = asyncio.to_thread

    async def counted(function: Callable[..., object], /, *args: object, **kwargs: object) -> object:
        nonlocal working
        working += 1
        try:
            return await to_thread(function, *args, **kwargs)
        finally:
            working -= 1

    async def rest() -> object:
        await asyncio.sleep(0)
        return await wait_until(lambda: not working, description="the threads rest")

    monkeypatch.setattr(asyncio, "to_thread", counted)
    return rest
