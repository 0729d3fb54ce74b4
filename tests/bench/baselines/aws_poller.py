"""Baseline: a bare aiobotocore poller without a function: reads a source to its end as fast as it is given.

python -m tests.bench.baselines.aws_poller SOURCE-FILE; prints {"per_s", "cpu_us"}. Of a queue it also deletes.
"""

import argparse
import asyncio
import json
import time
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from tests.bench.aws_sources import Source, read_source
from tests.brokers.aws import KEY

QUEUE_POLLERS = 5
"""As many as Lambda begins with."""


class Count:
    """Records so far; the clock begins with the first."""

    def __init__(self, wanted: int) -> None:
        self.wanted, self.records, self.first = wanted, 0, 0
        self.began = self.cpu = 0.0

    def add(self, records: int) -> None:
        if records and not self.records:
            self.began, self.cpu, self.first = time.perf_counter(), time.process_time(), records
        self.records += records

    @property
    def is_done(self) -> bool:
        return self.records >= self.wanted


async def read_shard(client: Any, stream: dict[str, str], shard: str, count: Count) -> None:
    answer = await client.get_shard_iterator(**stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON")
    iterator = answer["ShardIterator"]
    while not count.is_done and iterator:
        answer = await client.get_records(ShardIterator=iterator)
        count.add(len(answer["Records"]))
        iterator = answer.get("NextShardIterator")


async def read_queue(client: Any, url: str, count: Count) -> None:
    while not count.is_done:
        answer = await client.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
        messages = answer.get("Messages", [])
        if messages:
            entries = [{"Id": str(n), "ReceiptHandle": each["ReceiptHandle"]} for n, each in enumerate(messages)]
            await client.delete_message_batch(QueueUrl=url, Entries=entries)
        count.add(len(messages))


async def read(source: Source) -> dict[str, float]:
    count = Count(source.records)
    service = "dynamodbstreams" if source.kind == "dynamodb" else source.kind
    async with get_session().create_client(
        service, region_name="us-east-1", endpoint_url=source.endpoint_url,
        aws_access_key_id=KEY, aws_secret_access_key=KEY, config=AioConfig(max_pool_connections=50),
    ) as client:  # fmt: skip
        if source.kind == "sqs":
            work = [read_queue(client, source.url, count) for _ in range(QUEUE_POLLERS)]
        else:
            stream = {"StreamARN" if source.kind == "kinesis" else "StreamArn": source.arn}
            if source.kind == "kinesis":
                shards = (await client.list_shards(**stream))["Shards"]
            else:
                shards = (await client.describe_stream(**stream))["StreamDescription"]["Shards"]
            work = [read_shard(client, stream, shard["ShardId"], count) for shard in shards]
        await asyncio.gather(*work)
    took, records = time.perf_counter() - count.began, count.records - count.first
    return {"per_s": records / took, "cpu_us": (time.process_time() - count.cpu) / records * 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    print(json.dumps(asyncio.run(read(read_source(parser.parse_args().source)))))


if __name__ == "__main__":
    main()
