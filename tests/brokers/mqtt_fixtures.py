"""Fixtures that give tests MQTT: a mosquitto of their own, with what settings they like, to be stopped and restarted."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NoReturn

import pytest

from tests.brokers.mosquitto import HOW_TO_GET_IT, MosquittoBroker, is_installed


def leave_out() -> NoReturn:
    """Skip a test without its broker; in CI, fail it."""
    reason = f"no mosquitto on this machine: {HOW_TO_GET_IT}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs mosquitto, so that `-m mqtt` chooses it."""
    for item in items:
        if "mosquitto_broker" in getattr(item, "fixturenames", ()):
            item.add_marker("mqtt")


@pytest.fixture
def mosquitto_broker(tmp_path: Path) -> Iterator[Callable[..., MosquittoBroker]]:
    """Return `mosquitto_broker(settings=None)`: starts a broker of the test's own; a start takes 20 ms."""
    if not is_installed():
        leave_out()
    brokers: list[MosquittoBroker] = []

    def start(settings: Mapping[str, str] | None = None) -> MosquittoBroker:
        brokers.append(MosquittoBroker(tmp_path / f"mosquitto-{len(brokers)}", settings=settings))
        return brokers[-1].start()

    yield start
    for broker in brokers:
        broker.kill()


@pytest.fixture
def mosquitto(mosquitto_broker: Callable[..., MosquittoBroker]) -> MosquittoBroker:
    """A broker of the test's own with the usual settings."""
    return mosquitto_broker()
