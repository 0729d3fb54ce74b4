"""The rig of the crash tests, with a folder that is named when a test fails."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

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
