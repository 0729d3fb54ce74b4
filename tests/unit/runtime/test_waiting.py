"""A caller waits for a worker only so long: what keeps the workers busy may itself wait for that caller's answer."""

import asyncio

import pytest

from bridge.core.errors import Throttled
from bridge.core.invocation import THROTTLE_ACCOUNT
from tests.harness import wait_until
from tests.unit.runtime.conftest import own_pool


async def test_a_caller_is_refused_while_the_worker_stays_busy_and_others_wait_on(tmp_path):
    async with own_pool(tmp_path, workers_max=1) as runner:
        busy = asyncio.ensure_future(runner.run("app.sleep", 60))
        await wait_until(
            lambda: any(worker.is_ready for worker in runner.pool._workers.values()), description="it runs"
        )
        patient = asyncio.ensure_future(runner.run("app.sleep", 0))
        with pytest.raises(Throttled) as refused:
            await runner.run("app.sleep", invocation=runner.invocation(0, is_awaited=True, wait_max_s=0.2))
        assert refused.value.reason == THROTTLE_ACCOUNT
        assert not patient.done()
        busy.cancel()
        assert (await patient).is_ok
