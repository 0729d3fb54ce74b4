"""A whole daemon that writes the logs of its functions to CloudWatch Logs, read back with boto3."""

import json
import re

import pytest

from tests.harness import request, wait_for, write_function

pytestmark = [pytest.mark.integration]

SPEAKING = """
import logging

def handler(event, context):
    logging.getLogger().warning("saw %s", event["n"])
    print("done", event["n"])
"""
CONFIG = """
{connection}
[logs]
cloudwatch = true

[functions.speaking]
code = "{code}"
handler = "app.handler"
timeout_s = 60

[functions.speaking.logging_config]
log_format = "JSON"
log_group = "{group}"
"""


def said(service, group):
    """Return the messages of each stream of a group, by name."""
    logs = service.client("logs")
    try:
        streams = logs.describe_log_streams(logGroupName=group)["logStreams"]
    except logs.exceptions.ResourceNotFoundException:
        return {}
    return {
        stream["logStreamName"]: [
            event["message"]
            for event in logs.get_log_events(
                logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True
            )["events"]
        ]
        for stream in streams
    }


def test_what_a_function_writes_is_in_its_log_group_also_after_a_stop(daemon, ministack, tmp_path):
    group = f"/shop/{ministack.name()}"
    code = write_function(tmp_path / "speaking", SPEAKING)
    process = daemon(CONFIG.format(connection=ministack.connection(), code=code, group=group))

    def invoke(number):
        url = f"{process.api}/admin/v1/invoke/speaking"
        done = request(
            "POST", url, body=json.dumps({"n": number}), headers={"Authorization": f"Bearer {process.token}"}
        )
        assert done.status == 200, done

    def lines():
        return [message for messages in said(ministack, group).values() for message in messages]

    invoke(1)
    wait_for(lambda: any("platform.report" in line for line in lines()), description="the log of an invocation")
    (stream,) = said(ministack, group)
    kinds = [json.loads(line) if line.startswith("{") else line.strip() for line in lines()]
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/speaking\[\$LATEST\][0-9a-f]{32}", stream)
    assert [kinds[0]["type"], kinds[1]["message"], kinds[2], kinds[3]["type"]] == [
        "platform.start", "saw 1", "done 1", "platform.report",
    ]  # fmt: skip

    invoke(2)
    process.stop()

    assert {line.strip() for line in lines() if line.startswith("done")} == {"done 1", "done 2"}  # once at least
