"""The pytest plugin: a whole daemon in the test's process, on virtual time, without a broker or a disk.

Loaded by pytest wherever bridge is installed, so nothing else of bridge is imported before a fixture is used.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from bridge.daemon.trial import BridgeApp
    from bridge.daemon.trial_values import HttpAnswer, Invoked, Unhandled

_T = TypeVar("_T")

__all__ = ["BridgeApp", "HttpAnswer", "Invoked", "Unhandled"]


def __getattr__(name: str) -> Any:
    """Give the classes of what fixtures return, for annotations."""
    if name == "BridgeApp":
        from bridge.daemon.trial import BridgeApp

        return BridgeApp
    if name in __all__:
        from bridge.daemon import trial_values

        return getattr(trial_values, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Know the setting `bridge_config`."""
    parser.addini("bridge_config", "bridge: the configuration of bridge_app", default="bridge.toml")


@pytest.fixture
def bridge_config(pytestconfig: pytest.Config) -> Path:
    """The configuration of `bridge_app`: the setting `bridge_config` (bridge.toml), beside pytest's own file.

    Override it in a conftest, a module or a class, or parametrise it, for another one.
    """
    folder = pytestconfig.inipath.parent if pytestconfig.inipath else pytestconfig.rootpath
    return folder / str(pytestconfig.getini("bridge_config"))


@pytest.fixture
def bridge_app(bridge_config: "Path | str") -> "Iterator[BridgeApp]":
    """An in-process daemon: embedded streams for pull sources, memory for the disk, time that passes at once."""
    from bridge.core.errors import ConfigError
    from bridge.daemon.trial import BridgeApp

    app, mistakes = None, ""
    try:
        app = BridgeApp(Path(bridge_config))
    except ConfigError as error:
        mistakes = str(error)
    if app is None:
        pytest.fail(f"bridge_app: {mistakes}", pytrace=False)
    yield app
    app.close()


@pytest.fixture
def put(bridge_app: "BridgeApp") -> "Callable[..., HttpAnswer | None]":
    """`put(mapping_or_source, value, key=…, headers=…, topic=…, at=…)`: a record, a request, a message or a tick.

    It is handled by the next `drain`.
    """

    def put(name: str, value: Any = None, **options: Any) -> "HttpAnswer | None":
        __tracebackhide__ = True
        return _plainly(lambda: bridge_app.put(name, value, **options))

    return put


@pytest.fixture
def drain(bridge_app: "BridgeApp") -> Callable[..., list[str]]:
    """`drain()`: lets time pass until all is handled, dead-lettered or waits for ever; returns what still waits."""

    def drain(**options: Any) -> list[str]:
        __tracebackhide__ = True
        return _plainly(lambda: bridge_app.drain(**options))

    return drain


@pytest.fixture
def invocations(bridge_app: "BridgeApp") -> "list[Invoked]":
    """What functions were invoked with so far: function, event, values, result, error, attempt."""
    return bridge_app.invocations


@pytest.fixture
def dead_letters(bridge_app: "BridgeApp") -> "list[Unhandled]":
    """What could not be handled: function, source, event, values, condition, attempts, error_type, error_message."""
    return bridge_app.dead_letters


def _plainly(work: Callable[[], _T]) -> _T:
    """Call it; what bridge refuses is one line in the test's report."""
    __tracebackhide__ = True
    from bridge.core.errors import BridgeError

    try:
        return work()
    except BridgeError as error:
        refusal = str(error)
    pytest.fail(refusal)
