"""What whole daemons are asked by: functions that tell over a connection, since a sandbox sees no folder of the test."""

import json

import pytest

from tests.crash.rig import LedgerServer
from tests.harness import write_function

TELLING = """
import json, os, socket

host, port = os.environ["LEDGER"].split(":")
connection = socket.create_connection((host, int(port)))
answers = connection.makefile("rb")


def handler(event, context):
    connection.sendall(json.dumps(event).encode() + b"\\n")
    answers.readline()
"""
"""A function that tells every event that it gets."""
CONFIG = """
{connection}
[functions.telling]
code = "{code}"
handler = "app.handler"
timeout_s = 10
environment = {{ LEDGER = "{ledger}" }}

[mappings.read]
source = "{source}"
function = "telling"
{mapping}
"""


class Told:
    """The lines that functions have told so far; `address` is where they tell them."""

    def __init__(self, server: LedgerServer) -> None:
        self._server = server
        self.address = server.address

    def __call__(self) -> list:
        whole, _, _begun = self._server.path.read_bytes().rpartition(b"\n")  # the last line may be half written
        return [json.loads(line) for line in whole.splitlines()]

    def records(self) -> list:
        """Return the records of all events, in the order of their coming."""
        return [record for event in self() for record in event["Records"]]


@pytest.fixture
def told(tmp_path):
    """Return `told()`: what functions have told so far."""
    server = LedgerServer(tmp_path / "told.jsonl")
    yield Told(server)
    server.close()


@pytest.fixture
def telling(daemon, told, tmp_path):
    """Return `telling(service, source, mapping="")`: a daemon whose function tells every event."""

    def start(service, source, mapping="", **how):
        code = write_function(tmp_path / "code", TELLING)
        return daemon(
            CONFIG.format(
                connection=service.connection(), code=code, ledger=told.address, source=source, mapping=mapping
            ),
            **how,
        )

    return start
