"""A daemon that was built and not opened: what a reload refuses before it touches anything."""

from types import SimpleNamespace

import pytest

from bridge.config.load import load
from bridge.daemon.daemon import Daemon


@pytest.mark.parametrize("later", ['[api]\nauth = "none"\n', "[dev]\nreset = true\n"])
async def test_what_loopback_alone_may_have_waits_until_the_api_listens_there(tmp_path, later):
    path = tmp_path / "bridge.toml"
    path.write_text('state = "state"\n[listen]\napi = "0.0.0.0:8581"\ntls = "off"\n')
    daemon = Daemon(load(path).settings, config_path=path)
    path.write_text(f'state = "state"\n[listen]\napi = "127.0.0.1:8581"\n{later}')

    result = await daemon.reload()

    assert not result.ok
    assert "for loopback only, and until a restart" in result.errors[0]


async def test_keys_for_strangers_wait_until_something_keeps_their_code_from_the_state(tmp_path, monkeypatch):
    monkeypatch.setenv("LAMBDA_SECRET", "a-secret-of-this-test")
    path = tmp_path / "bridge.toml"
    path.write_text('state = "state"\n[listen]\napi = "0.0.0.0:8581"\ntls = "off"\n')
    daemon = Daemon(load(path).settings, config_path=path)
    daemon._parts.pool = SimpleNamespace(sandbox_level=lambda: "seccomp", sandbox_facts=list)
    # It says loopback; what listens is another address, until a restart.
    path.write_text('state = "state"\n[access_keys.STRANGER]\nsecret = { env = "LAMBDA_SECRET" }\n')

    result = await daemon.reload()

    assert not result.ok
    assert "nor a user of their own keeps functions from the state folder" in result.errors[0].replace("\n", " ")
