"""Baseline: botocore's parser, a dict per record and orjson: what a poller that invokes functions writes down first.

Prints {"record_us"}.
"""

import argparse
import base64
import json
from collections.abc import Callable

import botocore.parsers
import botocore.session
import orjson

from tests.bench.kinesis_answers import ARN, BATCH, SHARD, time_page


def poller() -> Callable[[bytes], list[bytes]]:
    """Return what makes events of the body of a page."""
    model = botocore.session.get_session().get_service_model("kinesis")
    shape = model.operation_model("GetRecords").output_shape
    parser = botocore.parsers.create_parser("json")

    def events(body: bytes) -> list[bytes]:
        answer = parser.parse({"status_code": 200, "headers": {}, "body": body}, shape)
        records = [
            {
                "kinesis": {
                    "kinesisSchemaVersion": "1.0",
                    "partitionKey": record["PartitionKey"],
                    "sequenceNumber": record["SequenceNumber"],
                    "data": base64.b64encode(record["Data"]).decode(),
                    "approximateArrivalTimestamp": record["ApproximateArrivalTimestamp"].timestamp(),
                },
                "eventSource": "aws:kinesis",
                "eventVersion": "1.0",
                "eventID": f"{SHARD}:{record['SequenceNumber']}",
                "eventName": "aws:kinesis:record",
                "invokeIdentityArn": "arn:aws:iam::123456789012:role/bridge",
                "awsRegion": "us-east-1",
                "eventSourceARN": ARN,
            }
            for record in answer["Records"]
        ]
        return [orjson.dumps({"Records": records[at : at + BATCH]}) for at in range(0, len(records), BATCH)]

    return events


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    print(json.dumps({"record_us": time_page(poller(), parser.parse_args().seconds)}))


if __name__ == "__main__":
    main()
