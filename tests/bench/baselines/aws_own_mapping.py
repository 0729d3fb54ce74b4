"""Baseline: the emulator's own event source mapping with a trivial Python function, as its Lambda runs it."""

import io
import time
import uuid
import zipfile
from pathlib import Path

from tests.bench.aws_sources import Source
from tests.brokers.aws import AwsService
from tests.harness import wait_for

BATCH = {"kinesis": 100, "dynamodb": 100, "sqs": 10}
DONE_MAX_S = 120.0
HANDLER = """
import os

def handler(event, context):
    with open({file!r}, "a") as file:
        file.write("%d\\n" % len(event["Records"]))
"""


def own_mapping(service: AwsService, source: Source, folder: Path) -> dict[str, float]:
    """Return its records per second, from its first batch on."""
    client = service.client("lambda")
    name = f"bench-{uuid.uuid4().hex[:8]}"
    file = folder / name
    file.touch()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("app.py", HANDLER.format(file=str(file)))
    client.create_function(
        FunctionName=name, Runtime="python3.13", Handler="app.handler", Timeout=60,
        Role=f"arn:aws:iam::{service.account}:role/bench", Code={"ZipFile": archive.getvalue()},
    )  # fmt: skip
    settings = {} if source.kind == "sqs" else {"StartingPosition": "TRIM_HORIZON"}
    mapping = client.create_event_source_mapping(
        EventSourceArn=source.arn, FunctionName=name, BatchSize=BATCH[source.kind], **settings
    )

    def handled() -> int:
        return sum(map(int, file.read_text().split()))

    try:
        first = wait_for(handled, DONE_MAX_S, "the emulator's mapping handles records")
        began = time.perf_counter()
        wait_for(lambda: handled() >= source.records, DONE_MAX_S, "it handles all of them")
        return {"per_s": (source.records - first) / (time.perf_counter() - began)}
    finally:
        client.delete_event_source_mapping(UUID=mapping["UUID"])
        client.delete_function(FunctionName=name)
