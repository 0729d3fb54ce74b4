"""What GetRecords of Kinesis answers, as bytes, and how its parsing is timed."""

import base64
import json
import time
from collections.abc import Callable

RECORDS = 100
DATA_BYTES = 1024
BATCH = 100
ARN = "arn:aws:kinesis:us-east-1:123456789012:stream/bench"
SHARD = "shardId-000000000000"


def answer() -> bytes:
    """Return the body of one page: RECORDS records of DATA_BYTES."""
    filling = "abcdefghijklmnopqrstuvwxyz0123456789" * 64
    records = []
    for number in range(RECORDS):
        data = json.dumps({"number": number, "text": filling[: DATA_BYTES - 40]}).encode()
        records.append({
            "SequenceNumber": f"4964{number:052d}", "ApproximateArrivalTimestamp": 1_780_000_000.123 + number / 1000,
            "Data": base64.b64encode(data).decode(), "PartitionKey": f"key{number % 40}",
        })  # fmt: skip
    return json.dumps({"Records": records, "NextShardIterator": "A" * 200, "MillisBehindLatest": 0}).encode()


def time_page(work: Callable[[bytes], list[bytes]], seconds: float) -> float:
    """Return the microseconds of CPU a record of the best of many rounds, since what disturbs only adds.

    CPU, not the clock, and pages that are short: of pages of 500 the baseline's took so long that on a busy machine
    none went undisturbed, which made the ratio up to four times too good.
    """
    body = answer()
    events = work(body)
    assert sum(len(json.loads(event)["Records"]) for event in events) == RECORDS
    best = float("inf")
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.process_time()
        work(body)
        best = min(best, time.process_time() - began)
    return best / RECORDS * 1e6
