"""What the tests of the pipeline share: virtual time that no thread outruns."""

import asyncio

import pytest


@pytest.fixture
def threads_at_once(monkeypatch):
    """What is given to a thread runs at once: else virtual time passes while a busy machine still works at it."""

    async def at_once(function, /, *args, **kwargs):
        await asyncio.sleep(0)
        return function(*args, **kwargs)

    monkeypatch.setattr(asyncio, "to_thread", at_once)
