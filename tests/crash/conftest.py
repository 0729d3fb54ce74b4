"""The rigs of the crash tests, with a folder that is named when a test fails."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.brokers.kafka import Endpoints
from tests.brokers.mosquitto import MosquittoBroker
from tests.crash.aws_rig import AwsRig
from tests.crash.kafka_rig import KafkaRig
from tests.crash.mqtt_rig import MqttRig
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


@pytest.fixture
def mqtt_rig(
    request: pytest.FixtureRequest, tmp_path: Path, mosquitto: MosquittoBroker
) -> Iterator[Callable[..., MqttRig]]:
    """Return `mqtt_rig(**settings)`; every rig ends with the test."""
    rigs: list[MqttRig] = []
    request.node.daemons = []

    def make(**settings: object) -> MqttRig:
        rigs.append(MqttRig(tmp_path / f"rig-{len(rigs)}", mosquitto, **settings))
        request.node.daemons.append(rigs[-1].daemon)
        return rigs[-1]

    yield make
    for one in rigs:
        one.close()
