"""Fixtures that give tests Kafka: one broker for all of a run, one of its own, topics; and what is said without it."""

import os
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import pytest
import pytest_asyncio

from tests.brokers import installation
from tests.brokers.kafka import Endpoints, KafkaBroker
from tests.brokers.noida import StandIn
from tests.brokers.sharing import shared

NONE_HERE = f"no Apache Kafka on this machine: {installation.HOW_TO_GET_IT}"


def external() -> str:
    """Return the broker that BRIDGE_TEST_KAFKA names, or nothing."""
    return os.environ.get("BRIDGE_TEST_KAFKA", "")


def stands_in() -> bool:
    """Say whether the tests run on noida-db; never in CI."""
    return not external() and installation.installed() is None


def in_ci() -> bool:
    return os.environ.get("CI") == "true"


def leave_out(reason: str) -> NoReturn:
    """Skip a test that the broker at hand cannot serve; where CI has no Kafka, fail it."""
    if stands_in() and in_ci():
        pytest.fail(NONE_HERE, pytrace=False)
    pytest.skip(f"{reason}: {installation.HOW_TO_GET_IT}")


# --- what is said ---------------------------------------------------------------------------------------


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs Kafka, so that `-m kafka` chooses it."""
    for item in items:
        if {"kafka_shared", "kafka_broker"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("kafka")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly when it was not Kafka that the tests ran on."""
    reports = [report for kind in ("passed", "failed", "skipped") for report in terminalreporter.stats.get(kind, [])]
    if stands_in() and any("kafka" in report.keywords for report in reports):
        terminalreporter.write_sep("!", "noida-db stood in for Apache Kafka", red=True, bold=True)
        terminalreporter.write_line(NONE_HERE)


# --- brokers --------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def kafka_shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    """The broker of the run: started by whoever needs it first, ended with the last; pytest-xdist's workers share it."""
    if address := external():
        yield Endpoints(address)
        return
    if stands_in() and in_ci():
        pytest.fail(NONE_HERE, pytrace=False)

    def start(folder: Path) -> tuple[KafkaBroker | StandIn, dict[str, Any]]:
        started = (StandIn(folder) if stands_in() else KafkaBroker(folder)).start()
        return started, asdict(started.endpoints)

    with shared(request, tmp_path_factory, "kafka", start) as endpoints:
        yield Endpoints(**endpoints)


@pytest.fixture
def kafka(request: pytest.FixtureRequest, kafka_shared: Endpoints) -> Endpoints:
    """The broker of the run: use topics and groups of your own, and leave it running.

    `@pytest.mark.apache_kafka(reason)` keeps a test from a stand-in, which cannot serve `reason`.
    """
    marker = request.node.get_closest_marker("apache_kafka")
    if marker is not None and stands_in():
        leave_out(f"noida-db has no {marker.args[0]}")
    return kafka_shared


@pytest.fixture
def kafka_secured(kafka_shared: Endpoints) -> Endpoints:
    """The broker of the run, with its listeners for TLS and SASL."""
    if not kafka_shared.sasl:
        leave_out("TLS and SASL need a broker that is started here")
    return kafka_shared


@pytest.fixture
def kafka_broker(tmp_path: Path) -> Iterator[Callable[..., KafkaBroker]]:
    """Return `kafka_broker(settings=None)`: starts a broker of the test's own, to be killed, paused and restarted."""
    if installation.installed() is None:
        leave_out("only Apache Kafka started here may be killed and restarted")
    brokers: list[KafkaBroker] = []

    def start(settings: Mapping[str, str] | None = None) -> KafkaBroker:
        brokers.append(KafkaBroker(tmp_path / f"kafka-{len(brokers)}", settings=settings))
        return brokers[-1].start()

    yield start
    for broker in brokers:
        broker.kill()


@pytest_asyncio.fixture
async def kafka_topic(request: pytest.FixtureRequest, kafka: Endpoints) -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """Return `await kafka_topic(partitions=1, configs=None)`: the name of a new topic; records of any age stay in it."""
    from tests.brokers.clients import create_topic, delete_topics

    made: list[str] = []

    async def make(partitions: int = 1, configs: Mapping[str, str] | None = None) -> str:
        name = f"{re.sub(r'[^a-zA-Z0-9]+', '-', request.node.name)[:60]}-{uuid.uuid4().hex[:8]}"
        await create_topic(
            kafka.bootstrap, name, partitions=partitions, configs={"retention.ms": "-1"} | dict(configs or {})
        )
        made.append(name)
        return name

    yield make
    if external() and made:
        await delete_topics(kafka.bootstrap, made)
