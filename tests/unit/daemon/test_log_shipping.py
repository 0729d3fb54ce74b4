"""Logs go to CloudWatch Logs where the file in force asks for it, and by the connection that it names."""

import pytest

from bridge.core.errors import ConfigError
from bridge.daemon.aws import AwsReach
from bridge.daemon.log_shipping import LogShipping
from bridge.destinations.cloudwatch import CONNECTION
from bridge.registry.roles import Role
from bridge.runtime.logs import FunctionLogs
from bridge.testing.clock import ManualClock

FILE = """
[functions.hello]
code = "code"
handler = "app.handler"

[connections.one]
type = "aws"
region = "us-east-1"

[connections.other]
type = "aws"
region = "eu-central-1"

[logs]
cloudwatch = {cloudwatch}
connection = "{connection}"
"""


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Return `settings(cloudwatch, connection="")`: those of the file."""
    from bridge.config.load import load

    monkeypatch.chdir(tmp_path)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "app.py").write_text("def handler(event, context): pass\n")

    def make(cloudwatch, connection=""):
        (tmp_path / "bridge.toml").write_text(FILE.format(cloudwatch=cloudwatch, connection=connection))
        return load(tmp_path / "bridge.toml", {}).settings

    return make


async def test_it_follows_the_file(settings, tmp_path):
    off, on = settings("false"), settings("true")
    logs, clock = FunctionLogs(tmp_path / "logs"), ManualClock()
    shipping = LogShipping(off, logs=logs, aws=AwsReach(off, clock=clock), clock=clock)
    assert (logs.sink, shipping.facts(), shipping.troubles(after_s=0)) == (None, [], [])
    await shipping.close()

    shipping.configure(on)
    assert shipping.facts() == [("CloudWatch Logs", True, "0 bytes of log events wait")]
    logs.stream("hello", "s", group="/g").write(b"kept\n", 1.0)
    logs.flush()
    assert shipping.facts() != [("CloudWatch Logs", True, "0 bytes of log events wait")]

    shipping.configure(off)
    assert logs.sink is None
    shipping.closes_by = clock.monotonic()
    await shipping.close()
    logs.close()


@pytest.mark.parametrize(("written", "name"), [("", "one"), ("other", "other")])
async def test_the_connection_is_the_one_named_or_that_of_the_region(settings, tmp_path, written, name):
    on = settings("true", written)
    aws = AwsReach(on, clock=ManualClock())
    asked = []

    async def client(connection, service, **how):
        asked.append((connection.name, service, how["region"]))

    aws.clients.client = client
    shipping = LogShipping(on, logs=FunctionLogs(tmp_path / "logs"), aws=aws, clock=ManualClock())
    await shipping._client(CONNECTION)
    assert asked == [(name, "logs", "us-east-1")]

    aws.configure(settings("false").model_copy(update={"connections": {}}))
    if written:
        with pytest.raises(ConfigError):
            await shipping._client(CONNECTION)


class Roles:
    connection = "one"

    def of_target(self, target):
        asked, _, version = target.partition(":")
        return Role(arn="arn:aws:iam::000000000000:role/worker") if (asked, version) == ("hello", "7") else None


@pytest.mark.parametrize(("stream", "is_role"), [("2026/01/01/[7]ab", True), ("2026/01/01/[$LATEST]ab", False)])
async def test_a_function_with_a_role_that_is_assumed_logs_as_that(settings, tmp_path, stream, is_role):
    on, clock = settings("true", "other"), ManualClock()
    on = on.model_copy(update={"roles": on.roles.model_copy(update={"connection": "one"})})
    logs, aws, asked = FunctionLogs(tmp_path / "logs"), AwsReach(on, clock=clock), []

    async def client(connection, service, **how):
        asked.append((connection.name, connection.role_arn, connection.session_name if connection.role_arn else ""))
        raise ConfigError("none here")

    aws.clients.client = client
    shipping = LogShipping(on, logs=logs, aws=aws, clock=clock, roles=Roles())
    logs.stream("hello", stream, group="/g").write(b"kept\n", 1.0)
    logs.flush()
    await shipping.close()
    assert asked[0] == (("other", "arn:aws:iam::000000000000:role/worker", "hello") if is_role else ("other", "", ""))
    logs.close()
