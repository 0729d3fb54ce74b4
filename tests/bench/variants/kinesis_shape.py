"""Ours: a page of Kinesis parsed to columns and events, without a filter, as the reader and the batches do it.

Prints {"record_us"}.
"""

import argparse
import json
from collections.abc import Callable

import orjson

from bridge.events.kinesis import KinesisShape
from bridge.sources.pull.kinesis import KinesisApi
from bridge.util.clocks import SystemClock
from tests.bench.kinesis_answers import ARN, BATCH, SHARD, time_page


def reader() -> Callable[[bytes], list[bytes]]:
    """Return what makes events of the body of a page."""
    shape = KinesisShape(ARN)

    async def never() -> None: ...

    api = KinesisApi(never, stream="bench", arn=ARN, shape=shape, clock=SystemClock())

    def events(body: bytes) -> list[bytes]:
        records = orjson.loads(body)["Records"]
        chunk = api.chunk(SHARD, records, through=api.position(records[-1]))
        fragments = chunk.fragments
        return [shape.event([(SHARD, fragments[at : at + BATCH])]) for at in range(0, len(fragments), BATCH)]

    return events


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    print(json.dumps({"record_us": time_page(reader(), parser.parse_args().seconds)}))


if __name__ == "__main__":
    main()
