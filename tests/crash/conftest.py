"""The rigs of the crash tests, with a folder that is named when a test fails."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.brokers.kafka import Endpoints
from tests.crash.aws_rig import AwsRig
from tests.crash.kafka_rig import KafkaRig
from tests.crash.rig import Rig


@pytest.fixture
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    """Return `rig(**settings)`; every rig ends with the test."""
    rigs: list[Rig] = []
    request.node.daemons = []

    def make(**settings: object) -> Rig:
        one = Rig(tmp_path / f"rig-{len(rigs)}", **settings)
        rigs.append(one)
        request.node.daemons.append(one.daemon)
        return one

    yield make
    for one in rigs:
        one.close()


@pytest.fixture
def new_kafka_rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., KafkaRig]]:
    """Return `new_kafka_rig(bootstrap=…, **settings)`; every rig ends with the test."""
    rigs: list[KafkaRig] = []
    request.node.daemons = []

    def make(**settings: object) -> KafkaRig:
        one = KafkaRig(tmp_path / f"kafka-rig-{len(rigs)}", on_daemon=request.node.daemons.append, **settings)
        rigs.append(one)
        return one

    yield make
    for one in rigs:
        one.close()


@pytest.fixture
def kafka_rig(kafka: Endpoints, new_kafka_rig: Callable[..., KafkaRig]) -> Callable[..., KafkaRig]:
    """Return `kafka_rig(**settings)` on the broker of the run."""
    return functools.partial(new_kafka_rig, bootstrap=kafka.bootstrap)


@pytest.fixture
def aws_rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., AwsRig]]:
    """Return `aws_rig(feed=…, **settings)`; every rig ends with the test."""
    rigs: list[AwsRig] = []
    request.node.daemons = []

    def make(**settings: object) -> AwsRig:
        one = AwsRig(tmp_path / f"aws-rig-{len(rigs)}", on_daemon=request.node.daemons.append, **settings)
        rigs.append(one)
        return one

    yield make
    for one in rigs:
        one.close()
