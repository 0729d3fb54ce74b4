"""A daemon that was built and not opened: what a reload refuses before it touches anything."""

import asyncio
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

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


async def test_a_part_whose_drain_fails_is_told_of_and_keeps_nothing_open(tmp_path, monkeypatch):
    path = tmp_path / "bridge.toml"
    path.write_text('state = "state"\n[listen]\npublic = "127.0.0.1:0"\napi = "127.0.0.1:0"\n')
    daemon = Daemon(load(path).settings, config_path=path)
    await daemon.open()

    async def fail(*, deadline_s):
        raise LookupError("a bug of ours")

    monkeypatch.setattr(daemon._parts.mappings, "drain", fail)
    with capture_logs() as lines:
        await daemon.close()

    assert [(line["part"], str(line["exc_info"])) for line in lines if line["event"] == "drain_failed"] == [
        ("mappings", "a bug of ours")
    ]
    assert lines[-1]["event"] == "daemon_stopped"
    again = Daemon(load(path).settings, config_path=path)
    await again.open()  # nobody holds the state folder
    await again.close()


async def test_a_stop_waits_for_a_reload_that_runs(tmp_path, monkeypatch):
    path = tmp_path / "bridge.toml"
    path.write_text('state = "state"\n[listen]\npublic = "127.0.0.1:0"\napi = "127.0.0.1:0"\n')
    daemon = Daemon(load(path).settings, config_path=path)
    await daemon.open()
    ended = []
    begun, may_end = asyncio.Event(), asyncio.Event()
    replace, drain = daemon._sources.replace, daemon._sources.drain

    async def slow(prepared):
        begun.set()
        await may_end.wait()
        await replace(prepared)
        ended.append("replaced")

    async def drained(*, deadline_s):
        ended.append("drained")
        await drain(deadline_s=deadline_s)

    monkeypatch.setattr(daemon._sources, "replace", slow)
    monkeypatch.setattr(daemon._sources, "drain", drained)
    reload = asyncio.create_task(daemon.reload())
    await begun.wait()
    close = asyncio.create_task(daemon.close())
    for _ in range(50):  # as long as it would take to begin draining
        await asyncio.sleep(0)
    may_end.set()
    await close

    assert (await reload).ok
    assert ended == ["replaced", "drained"]
