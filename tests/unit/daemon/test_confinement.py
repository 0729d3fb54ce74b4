"""What must confine functions before the daemon serves."""

import pytest

from bridge.config.load import load
from bridge.core.errors import ConfigError
from bridge.daemon.confinement import check_confinement
from bridge.runtime.confined import LEVELS

KEYS = "access_keys = { BRIDGEKEY = { secret = { env = 'LAMBDA_SECRET' } } }"
ELSEWHERE = "listen = { api = '0.0.0.0:8599', tls = 'upstream' }"


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("LAMBDA_SECRET", "a-secret-of-this-test")

    def read(text):
        file = tmp_path / "bridge.toml"
        file.write_text(text)
        return load(file).settings

    return read


@pytest.mark.parametrize("least", LEVELS)
@pytest.mark.parametrize("level", LEVELS)
def test_less_than_asked_for_does_not_start(settings, least, level):
    loaded = settings(f"runtime = {{ sandbox_min = '{least}' }}")

    if LEVELS.index(level) >= LEVELS.index(least):
        check_confinement(loaded, level=level, facts=[], is_reachable=False)
        return
    with pytest.raises(ConfigError, match=f'sandbox_min = "{least}": workers here are confined by "{level}" only'):
        check_confinement(loaded, level=level, facts=[], is_reachable=False)


@pytest.mark.parametrize("mechanism", ["landlock", "own user"])
def test_functions_made_from_elsewhere_need_something_between_them_and_the_state(settings, mechanism):
    loaded = settings(f"{ELSEWHERE}\n{KEYS}")

    check_confinement(loaded, level="seccomp", facts=[(mechanism, True, "")], is_reachable=True)
    with pytest.raises(ConfigError, match="nor a user of their own keeps functions from the state folder"):
        check_confinement(
            loaded, level="seccomp", facts=[(mechanism, False, "not here"), ("seccomp", True, "")], is_reachable=True
        )


@pytest.mark.parametrize(("text", "is_reachable"), [(KEYS, False), ("functions = {}", True)])
def test_on_loopback_and_without_keys_nothing_more_is_asked(settings, text, is_reachable):
    check_confinement(settings(text), level="basic", facts=[], is_reachable=is_reachable)
