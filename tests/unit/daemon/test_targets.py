"""Which transport a target gets: by what the file says of it now."""

from types import SimpleNamespace

import pytest

from bridge.config.load import load
from bridge.core.errors import ConfigError
from bridge.core.function import Function, FunctionVersion
from bridge.core.outcome import TargetPlace
from bridge.daemon.aws import AwsReach
from bridge.daemon.targets import Targets
from bridge.destinations.aws import AwsTarget
from bridge.destinations.functions import FunctionTarget
from bridge.destinations.kafka import KafkaDestination
from bridge.testing.clock import ManualClock

FILE = """
[connections.a]
type = "aws"
region = "eu-central-1"
[connections.k]
type = "kafka"
bootstrap_servers = ["k:9092"]
"""
HERE = "arn:aws:lambda:us-east-1:000000000000:function:f"
THERE = "arn:aws:lambda:eu-central-1:123456789012:function:far:live"


def function(name: str, arn: str) -> Function:
    return Function(name=name, latest=FunctionVersion(name=name, arn=arn, code="/x", revision="1", handler="a.b"))


@pytest.fixture
def made(tmp_path):
    """Return `made(text)`: targets over a file, with two functions."""
    clock = ManualClock()

    def make(text=FILE):
        (tmp_path / "bridge.toml").write_text(text)
        return load(tmp_path / "bridge.toml", {}).settings

    settings = make()
    aws = AwsReach(settings, clock=clock)
    targets = Targets(
        settings, aws=aws, functions=lambda: (function("f", HERE), function("far", THERE)),
        intake=lambda: SimpleNamespace(), clock=clock,
    )  # fmt: skip

    def configure(text):
        settings = make(text)
        aws.configure(settings)
        targets.configure(settings)

    return SimpleNamespace(targets=targets, configure=configure)


def transport(made, target: str, connection: str = ""):
    return made.targets.transport(TargetPlace(target=target, connection=connection))


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("arn:aws:sqs:eu-central-1:123456789012:q", AwsTarget), ("arn:aws:s3:::bucket", AwsTarget),
        ("arn:aws:sqs:us-west-2:123456789012:q", AwsTarget), ("kafka://k/t", KafkaDestination), (HERE, FunctionTarget),
        (HERE + ":live", FunctionTarget), (THERE, FunctionTarget), (THERE.replace("far", "other"), AwsTarget),
    ],
)  # fmt: skip
def test_each_kind_of_target(made, target, kind):
    one = transport(made, target)

    assert isinstance(one, kind)
    assert transport(made, target) is one


def test_a_function_s_qualifier_is_its_event_s(made):
    assert transport(made, HERE + ":live")._function == "f:live"
    assert transport(made, THERE)._function == "far"


@pytest.mark.parametrize(
    ("target", "connection"),
    [("kafka://nobody/t", ""), ("arn:aws:sqs:eu-central-1:123456789012:q", "gone"), ("arn:x", "")],
)
def test_what_the_file_does_not_reach(made, target, connection):
    with pytest.raises(ConfigError):
        transport(made, target, connection)


def test_a_connection_that_changed_is_another_way(made):
    before = transport(made, "arn:aws:sqs:eu-central-1:123456789012:q")
    bus = transport(made, "arn:aws:events:eu-central-1:123456789012:event-bus/b")
    made.configure(FILE.replace('eu-central-1"', 'eu-central-1"\nprofile = "p"'))
    after = transport(made, "arn:aws:sqs:eu-central-1:123456789012:q")
    made.configure(FILE + '[invocation]\nevent_bridge_source = "mine"\n')

    assert after is not before
    assert transport(made, "arn:aws:sqs:eu-central-1:123456789012:q") is before
    assert transport(made, "arn:aws:events:eu-central-1:123456789012:event-bus/b") is not bus
