"""Baseline: the bridge that one would write in an afternoon: async for, json.dumps, a process pool, commit per batch.

Prints {"per_s", "cpu_us", "records"} as kafka_getmany does; the CPU is that of the parent.
"""

import argparse
import asyncio
import base64
import json
import time
import uuid
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import uvloop
from aiokafka import AIOKafkaConsumer

from tests.bench.baselines.kafka_getmany import arguments

BATCH = 100


def handle(event: str) -> str:
    json.loads(event)
    return json.dumps(None)


def shaped(record: Any) -> dict[str, Any]:
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "timestampType": "CREATE_TIME",
        "key": base64.b64encode(record.key).decode(),
        "value": base64.b64encode(record.value).decode(),
        "headers": [{name: list(value)} for name, value in record.headers],
    }


async def consume(options: argparse.Namespace) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    consumer = AIOKafkaConsumer(
        options.topic, bootstrap_servers=options.bootstrap, group_id=f"naive-{uuid.uuid4().hex}",
        auto_offset_reset="earliest", enable_auto_commit=False,
    )  # fmt: skip
    await consumer.start()
    with ProcessPoolExecutor(1) as pool:
        await loop.run_in_executor(pool, handle, "{}")
        count, batch = 0, {}  # type: tuple[int, dict[str, list[Any]]]
        began, cpu = 0.0, 0.0
        async for record in consumer:
            began, cpu = began or time.perf_counter(), cpu or time.process_time()
            batch.setdefault(f"{record.topic}-{record.partition}", []).append(shaped(record))
            count += 1
            if count % BATCH == 0:
                event = {
                    "eventSource": "SelfManagedKafka", "bootstrapServers": options.bootstrap, "records": batch
                }  # fmt: skip
                await loop.run_in_executor(pool, handle, json.dumps(event))
                await consumer.commit()
                batch = {}
                if time.perf_counter() - began > options.seconds:
                    break
        took = time.perf_counter() - began
        result = {"per_s": count / took, "cpu_us": (time.process_time() - cpu) / count * 1e6, "records": count}
    await consumer.stop()
    return result


if __name__ == "__main__":
    print(json.dumps(uvloop.run(consume(arguments()))))
