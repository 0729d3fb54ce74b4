"""Closed-loop callers: each waits for its answer before it asks again."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from tests.bench.measure import percentile

WARM_UP_S = 0.3


async def drive(call: Callable[[int], Awaitable[object]], *, callers: int, seconds: float) -> dict[str, float]:
    """Run `callers` loops of `call(n)` for `seconds` after a short warm-up; return calls/s and p50, p99 in us."""
    latencies: list[float] = []
    begins = time.perf_counter() + WARM_UP_S
    ends = begins + seconds
    number = 0

    async def loop() -> None:
        nonlocal number
        while (began := time.perf_counter()) < ends:
            number += 1
            await call(number)
            if began >= begins:
                latencies.append(time.perf_counter() - began)

    await asyncio.gather(*(loop() for _ in range(callers)))
    return {
        "per_s": len(latencies) / seconds,
        "p50_us": percentile(latencies, 0.5) * 1e6,
        "p99_us": percentile(latencies, 0.99) * 1e6,
    }
