"""Baseline: a bare aiomqtt subscriber at QoS 1, which acknowledges on arrival and keeps nothing.

Prints {"per_s", "cpu_us", "messages"}, from the first message to the last.
"""

import argparse
import json
import time

import aiomqtt
import uvloop
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.bench.mqtt_topics import CLIENT, TOPIC


async def consume(options: argparse.Namespace) -> dict[str, float]:
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = 3600
    client = aiomqtt.Client(
        "127.0.0.1", options.port, identifier=CLIENT, protocol=aiomqtt.ProtocolVersion.V5, clean_start=False,
        properties=properties,
    )  # fmt: skip
    count, began, cpu = 0, 0.0, 0.0
    async with client:
        await client.subscribe(TOPIC, 1)
        async for _ in client.messages:
            began, cpu = began or time.perf_counter(), cpu or time.process_time()
            count += 1
            if count >= options.messages:
                break
    took = time.perf_counter() - began
    return {"per_s": count / took, "cpu_us": (time.process_time() - cpu) / count * 1e6, "messages": count}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--messages", type=int, required=True)
    print(json.dumps(uvloop.run(consume(parser.parse_args()))))
