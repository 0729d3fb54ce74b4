"""Ours: the journal's group commit under waiting appenders, or with --scan N a replay's scan in chunks."""

import argparse
import asyncio
import json
import sys
import time
import uuid
from pathlib import Path

import uvloop

from bridge.core import limits
from bridge.core.invocation import InvocationType
from bridge.core.ports import Selection
from bridge.core.record import Record
from bridge.journal.journal import SegmentJournal
from bridge.util.aio import SWITCH_INTERVAL_S
from tests.bench.callers import drive
from tests.bench.measure import scratch


def record(payload: bytes) -> Record:
    return Record(
        id=str(uuid.uuid4()),
        source="bench",
        function="bench",
        invocation_type=InvocationType.EVENT,
        received_at=time.time(),
        payload=payload,
    )


def make(folder: Path) -> SegmentJournal:
    def broken(error: Exception) -> None:
        raise error

    return SegmentJournal(
        folder=folder / "journal", segment_bytes=limits.SEGMENT_DEFAULT_BYTES, low_water_bytes=0, on_fatal=broken
    )


async def append(folder: Path, *, callers: int, seconds: float, payload: bytes) -> dict[str, float]:
    journal = make(folder)
    await journal.open()
    try:
        return await drive(lambda _: journal.append(record(payload)), callers=callers, seconds=seconds)
    finally:
        await journal.close()


async def scan(folder: Path, *, count: int, payload: bytes) -> dict[str, float]:
    journal = make(folder)
    await journal.open()
    for _ in range(0, count, 1000):
        await asyncio.gather(*(journal.append(record(payload)) for _ in range(min(1000, count))))
    rates = []
    for _ in range(3):
        began = time.perf_counter()
        seen = size = 0
        async for chunk in journal.scan(Selection(), chunk=512):
            seen += len(chunk)
            size += sum(len(payload) for payload in chunk.payloads)
        assert (seen, size) == (count, count * len(payload))
        rates.append(count / (time.perf_counter() - began))
    await journal.close()
    return {"per_s": max(rates)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--bytes", type=int, default=1024)
    parser.add_argument("--scan", type=int, default=0)
    options = parser.parse_args()
    sys.setswitchinterval(SWITCH_INTERVAL_S)  # as the daemon runs
    payload = json.dumps({"data": "x" * (options.bytes - 12)}).encode()
    with scratch() as folder:
        work = (
            scan(folder, count=options.scan, payload=payload)
            if options.scan
            else append(folder, callers=options.callers, seconds=options.seconds, payload=payload)
        )
        print(json.dumps(uvloop.run(work)))


if __name__ == "__main__":
    main()
