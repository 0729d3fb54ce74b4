"""Fixtures that give tests services of AWS: one emulator of a kind for all of a run, one of its own, a stub that injects faults."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.brokers.aws import AwsService
from tests.brokers.emulators import EMULATORS, HOW_TO_GET_IT, Emulator
from tests.brokers.faults import FaultStub
from tests.brokers.sharing import shared

TIMEOUT_S = 90
SHARED = {"ministack_shared": "ministack", "moto_shared": "moto", "kinesis_shared": "kinesis-local"}


def leave_out(name: str) -> NoReturn:
    """Skip a test without its emulator; in CI, fail it."""
    reason = f"no {name} on this machine: {HOW_TO_GET_IT}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a service of AWS, so that `-m aws` chooses it, and give it time to wait for the start."""
    for item in items:
        if {*SHARED, "aws_emulator"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("aws")
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TIMEOUT_S))


def _start(name: str, folder: Path, settings: Mapping[str, str] | None = None) -> Emulator:
    if not EMULATORS[name].is_installed():
        leave_out(name)
    return EMULATORS[name](folder, settings=settings).start()


def _shared(
    name: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    def start(folder: Path) -> tuple[Emulator, dict[str, Any]]:
        emulator = _start(name, folder)
        return emulator, {"endpoint_url": emulator.endpoint_url, "account": emulator.account}

    with shared(request, tmp_path_factory, name, start) as endpoints:
        yield endpoints


@pytest.fixture(scope="session")
def ministack_shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    yield from _shared("ministack", request, tmp_path_factory)


@pytest.fixture(scope="session")
def moto_shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    yield from _shared("moto", request, tmp_path_factory)


@pytest.fixture(scope="session")
def kinesis_shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    yield from _shared("kinesis-local", request, tmp_path_factory)


@pytest.fixture
def aws_view(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., AwsService]]:
    """Return `aws_view(endpoint_url, account)`: a test's own clients and names at an endpoint; closed with the test."""
    views: list[AwsService] = []

    def view(endpoint_url: str, account: str) -> AwsService:
        views.append(
            AwsService(
                endpoint_url, folder=tmp_path / f"aws-{len(views)}", stem=request.node.originalname, account=account
            )
        )
        return views[-1]

    yield view
    for each in views:
        each.close()


@pytest.fixture
def ministack(ministack_shared: dict[str, Any], aws_view: Callable[..., AwsService]) -> AwsService:
    """SQS, SNS, S3, DynamoDB and its streams, EventBridge, Lambda, KMS, STS; shared, so use names of `.name()`."""
    return aws_view(**ministack_shared)


@pytest.fixture
def moto(moto_shared: dict[str, Any], aws_view: Callable[..., AwsService]) -> AwsService:
    """The second opinion on the shape of answers; shared, so use names of `.name()`."""
    return aws_view(**moto_shared)


@pytest.fixture
def kinesis(kinesis_shared: dict[str, Any], aws_view: Callable[..., AwsService]) -> AwsService:
    """Kinesis with splits and merges as on AWS (kinesis-local); shared, so use names of `.name()`."""
    return aws_view(**kinesis_shared)


@pytest.fixture
def aws_emulator(tmp_path: Path, aws_view: Callable[..., AwsService]) -> Iterator[Callable[..., Any]]:
    """Return `aws_emulator(name, settings=None)` -> (emulator, service): one of the test's own, to be killed and paused."""
    emulators: list[Emulator] = []

    def start(name: str, settings: Mapping[str, str] | None = None) -> tuple[Emulator, AwsService]:
        emulators.append(_start(name, tmp_path / f"{name}-{len(emulators)}", settings))
        return emulators[-1], aws_view(emulators[-1].endpoint_url, emulators[-1].account)

    yield start
    for emulator in emulators:
        emulator.kill()


@pytest.fixture
def aws_faults(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., FaultStub]]:
    """Return `aws_faults(upstream=None)`: a stub in front of an endpoint, or one that answers what it is told to."""
    stubs: list[FaultStub] = []

    def start(upstream: AwsService | None = None) -> FaultStub:
        folder = tmp_path / f"faults-{len(stubs)}"
        stubs.append(FaultStub(upstream, folder=folder, stem=request.node.originalname))
        return stubs[-1]

    yield start
    for stub in stubs:
        stub.close()
