"""Baseline: a bare aiokafka getmany loop, which hands the records to nobody and commits nothing.

Prints {"per_s", "cpu_us", "records"}: from the first records on, for some seconds or to the end of the topic.
"""

import argparse
import asyncio
import json
import time
import uuid

import uvloop
from aiokafka import AIOKafkaConsumer


async def consume(options: argparse.Namespace) -> dict[str, float]:
    consumer = AIOKafkaConsumer(
        options.topic, bootstrap_servers=options.bootstrap, group_id=f"bare-{uuid.uuid4().hex}",
        auto_offset_reset="earliest", enable_auto_commit=False,
    )  # fmt: skip
    await consumer.start()
    try:
        while not await consumer.getmany(timeout_ms=1000):
            await asyncio.sleep(0)
        count = 0
        began, cpu = time.perf_counter(), time.process_time()
        while (took := time.perf_counter() - began) < options.seconds:
            records = await consumer.getmany(timeout_ms=1000)
            if not records:
                break
            count += sum(map(len, records.values()))
            took = time.perf_counter() - began
        return {"per_s": count / took, "cpu_us": (time.process_time() - cpu) / count * 1e6, "records": count}
    finally:
        await consumer.stop()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("bootstrap")
    parser.add_argument("topic")
    parser.add_argument("--seconds", type=float, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    print(json.dumps(uvloop.run(consume(arguments()))))
