import pytest_asyncio

from tests.unit.api.harness import World


@pytest_asyncio.fixture
async def world():
    made = World()
    yield made
    await made.close()
