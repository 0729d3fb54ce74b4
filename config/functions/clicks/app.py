"""Counts clicks by page: batches of Kafka records, as Lambda hands them over."""

import base64
import json
from collections import Counter


def handler(event, context):
    pages = Counter()
    for records in event["records"].values():
        for record in records:
            click = json.loads(base64.b64decode(record["value"]))
            pages[click["page"]] += 1
    print(*(f"{page}: {count}" for page, count in sorted(pages.items())))
