"""The verbs about configuration and daemon: run, check, config, reload; completion and the command itself."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from bridge.api.app import ReloadResult
from bridge.cli import arguments
from bridge.cli.main import _VERBS, cli
from bridge.core.errors import ConfigError, StoreBusy, StoreError
from tests.unit.api.harness import TOKEN, event_id

GOOD = """
[functions.hello]
code = "fn"
handler = "app.handler"
environment = { STAGE = "prod", DB = { env = "DB_URL" } }

[sources.hello]
type = "webhook"
path = "/hooks/hello"
function = "hello"
verify = "none"
"""

CLICKS = """
[connections.main]
type = "kafka"
bootstrap_servers = ["kafka-1:9092"]
sasl = { mechanism = "SCRAM-SHA-512", username = "bridge", password = { env = "DB_URL" } }

[mappings.clicks]
source = "kafka://main/clicks"
function = "hello"
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("DB_URL", "canary-91c")
    (tmp_path / "fn").mkdir()
    (tmp_path / "fn" / "app.py").write_text("def handler(event, context): ...\n")
    path = tmp_path / "bridge.toml"
    path.write_text(GOOD)
    return path


# --- check, config --------------------------------------------------------------------------------


def test_check_says_what_there_is(alone, config):
    for args in (["check"], ["check", "bridge.toml"], ["--config", "bridge.toml", "check"]):
        found = alone(*args)
        assert found.code == 0, found.err
        assert found.out.startswith("OK  ")
        assert "functions    hello" in found.out
        assert "mappings     none" in found.out
    config.write_text(GOOD + CLICKS)
    report = json.loads(alone("check", "--json").out)
    assert (report["ok"], report["functions"], report["sources"]) == (True, ["hello"], ["hello"])
    assert (report["connections"], report["mappings"]) == (["main"], ["clicks"])


def test_check_says_where_remote_functions_are(alone, config):
    arn = "arn:aws:lambda:eu-central-1:123456789012:function:billing:live"
    aws = '[connections.aws]\ntype = "aws"\nregion = "eu-central-1"\n'
    config.write_text(f'{GOOD}\n[functions.billing]\narn = "{arn}"\n')

    assert f"remote       billing: {arn} by boto's own chain of credentials" in alone("check").out
    config.write_text(f'{GOOD}\n{aws}[functions.billing]\narn = "{arn}"\n')
    assert f"remote       billing: {arn} by connection aws" in alone("check").out
    assert {"billing": {"arn": arn, "connection": "aws"}} == json.loads(alone("check", "--json").out)[
        "remote_functions"
    ]


def test_check_says_every_mistake_and_is_2(alone, config):
    config.write_text(GOOD.replace("handler =", "handlr =").replace('verify = "none"', ""))

    found = alone("check")

    assert (found.code, found.out) == (2, "")
    first, *rest = found.err.splitlines()
    assert first.startswith("bridge: ")
    assert sum("bridge.toml:" in line for line in [first, *rest]) >= 2
    assert all(alone(*args).code == 2 for args in (["run"], ["config", "show"]))


@pytest.mark.parametrize("name", ["missing.toml", ".", "a\nb"])
def test_files_that_are_none_are_2(alone, name):
    found = alone("check", name)

    assert (found.code, found.err.count("\n")) == (2, 1), found.err


def test_no_file_is_2(alone):
    assert alone("check").code == 2
    assert alone("run").code == 2


def test_config_show_masks_secrets_and_can_be_loaded_again(alone, config, tmp_path):
    found = alone("config", "show")

    assert found.code == 0
    assert "canary-91c" not in found.out + found.err
    (tmp_path / "again.toml").write_text(found.out)
    assert alone("check", "again.toml").code == 0


def test_config_schema_is_json(alone):
    assert json.loads(alone("config", "schema").out)["title"]


# --- run ------------------------------------------------------------------------------------------


@pytest.fixture
def daemon(monkeypatch):
    """What `bridge.daemon.run` was called with, and what it does."""
    import bridge.daemon

    seen = SimpleNamespace(calls=[], does=0)

    def run(settings, **options):
        seen.calls.append((settings, options, os.environ.get("BRIDGE_STATE")))
        if isinstance(seen.does, Exception):
            raise seen.does
        return seen.does

    monkeypatch.setattr(bridge.daemon, "run", run)
    return seen


def test_run_hands_over_settings_path_and_watch(alone, config, daemon, tmp_path):
    assert alone("run").code == 0
    assert alone("run", "--watch", "bridge.toml").code == 0

    (_, first, _), (settings, second, _) = daemon.calls
    assert (first["config_path"], first["watch"]) == (config, False)
    assert second["watch"] is True
    assert list(settings.functions) == ["hello"]


def test_run_local_hands_over_a_file_without_its_brokers(alone, config, daemon, monkeypatch):
    config.write_text(GOOD + CLICKS.replace("DB_URL", "ONLY_IN_PRODUCTION"))

    assert alone("run").code == 2
    assert alone("run", "--local", "bridge.toml").code == 0
    ((settings, options, _),) = daemon.calls
    assert settings.mappings["clicks"].source == "local://clicks?as=kafka"
    assert settings.connections == {}
    assert (options["local"], options["allow_remote"]) == (True, False)


def test_run_allow_remote(alone, config, daemon):
    assert alone("run", "--allow-remote").code == 0

    ((_, options, _),) = daemon.calls
    assert (options["local"], options["allow_remote"]) == (False, True)


def test_config_show_of_connections_and_mappings(alone, config):
    config.write_text(GOOD + CLICKS)

    shown = alone("config", "show").out
    config.write_text(shown)

    assert "canary" not in shown
    assert 'password = {env = "DB_URL"}' in shown
    assert "[mappings.clicks]" in shown
    assert alone("check").code == 0


def test_run_takes_the_state_folder_from_the_option(alone, config, daemon, tmp_path):
    alone("--state", "elsewhere", "run", env={"BRIDGE_STATE": ""})

    ((settings, _, variable),) = daemon.calls
    assert settings.state == tmp_path / "elsewhere"
    assert variable == "elsewhere"


@pytest.mark.parametrize(
    ("does", "code"),
    [
        (0, 0),
        (1, 1),
        (ConfigError("listener api: cannot listen on 127.0.0.1:80"), 2),
        (StoreBusy("in use by pid 7"), 2),
        (StoreError("fsync"), 1),
    ],
)
def test_run_ends_with_the_right_code(alone, config, daemon, does, code):
    daemon.does = does

    found = alone("run")

    assert found.code == code
    assert found.err == (f"bridge: {does}\n" if isinstance(does, Exception) else "")


# --- reload ---------------------------------------------------------------------------------------


def test_reload(bridge, served):
    found = bridge("reload")
    assert (found.code, found.out) == (0, "OK  1 changed\n  functions.hello: timeout_s 3 -> 5\n")

    served.world.reloaded = ReloadResult(ok=True)
    assert bridge("reload").out == "OK  nothing changed\n"

    served.world.reloaded = ReloadResult(ok=False, errors=("bridge.toml:1: x", "bridge.toml:2: y"))
    found = bridge("reload")
    assert found.code == 2
    assert found.err.splitlines() == [
        "bridge: the configuration has mistakes; nothing changed",
        "  bridge.toml:1: x",
        "  bridge.toml:2: y",
    ]


# --- the command itself ---------------------------------------------------------------------------


def test_help_lists_every_verb_and_each_has_its_own(alone):
    found = alone("--help")

    for verb, (_, text) in _VERBS.items():
        assert f"  {verb} " in found.out
        assert text.split()[0] in found.out
        own = alone(verb, "--help")
        assert (own.code, "Usage: bridge" in own.out or "Usage:" in own.out) == (0, True)
        assert "\\b" not in own.out, "a mark for click, in a docstring that is raw"
    assert alone().code in (0, 2)


def test_no_verb_of_a_later_issue_is_there():
    assert not {"init", "test"} & set(_VERBS)


@pytest.mark.parametrize(
    ("word", "says"),
    [("evnts", "Did you mean 'events'?"), ("zzz", "Known are: run, check"), ("init", "No such command")],
)
def test_an_unknown_verb_is_2_and_names_the_nearest(alone, word, says):
    found = alone(word)

    assert (found.code, says in found.err) == (2, True), found.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(alone, shell):
    assert "_BRIDGE_COMPLETE" in alone("completion", shell).out
    assert alone("completion", "tcsh").code == 2


def complete(words: str, **env: str) -> list[str]:
    from click.shell_completion import BashComplete

    *args, incomplete = words.split(" ")[1:]
    completer = BashComplete(cli, {}, "bridge", "_BRIDGE_COMPLETE")
    return [item.value for item in completer.get_completions(args, incomplete)]


def test_names_complete_from_the_daemon_and_silently_without(served, monkeypatch):
    monkeypatch.setattr(arguments, "_COMPLETION_S", 20.0)
    served.world.catalog.add("orders")
    monkeypatch.setenv("BRIDGE_STATE", str(served.state))
    assert complete("bridge ev") == ["events"]
    assert complete("bridge logs ") == ["hello", "orders"]
    assert complete("bridge invoke o") == ["orders"]
    assert complete("bridge replay --function h") == ["hello"]
    assert complete("bridge replays show ") == []

    monkeypatch.setenv("BRIDGE_STATE", "/nonexistent")
    for words in ("logs ", "events show ", "dlq redrive --id ", "replay --mapping orders --shard "):
        assert complete(f"bridge {words}") == []
    assert complete("bridge dlq list --queue ") == ["default", "*"]
    monkeypatch.setenv("BRIDGE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("BRIDGE_TOKEN", "x")
    assert complete("bridge logs ") == []


def test_ids_complete_from_what_the_daemon_has(served, monkeypatch):
    monkeypatch.setattr(arguments, "_COMPLETION_S", 20.0)
    world = served.world
    for number in range(3):
        world.store(number)
    world.bury(1, error_type="Value\nError")
    world.bury(2, queue="replay:r")
    monkeypatch.setenv("BRIDGE_STATE", str(served.state))

    assert complete("bridge events show ") == [event_id(2), event_id(1), event_id(0)]
    assert complete("bridge events show 00000001") == [event_id(1)]
    assert complete("bridge replay --id 00000002") == [event_id(2)]
    for words in ("dlq show ", "dlq redrive ", "dlq redrive --id ", "dlq purge --id ", "replay --from-dead-letter "):
        assert complete(f"bridge {words}") == [event_id(1), event_id(2)], words
    assert complete("bridge dlq redrive --queue replay:r --id ") == [event_id(2)]
    assert complete("bridge dlq list --queue d") == ["default"]


def test_an_id_completes_with_what_it_is_about(served, monkeypatch):
    monkeypatch.setattr(arguments, "_COMPLETION_S", 20.0)
    from click.shell_completion import ZshComplete

    served.world.bury(1, error_type="Value\nError")
    monkeypatch.setenv("BRIDGE_STATE", str(served.state))

    (item,) = ZshComplete(cli, {}, "bridge", "_BRIDGE_COMPLETE").get_completions(["dlq", "show"], "")

    assert "hello dead Value\\nError" in item.help


def test_a_daemon_that_is_slow_completes_nothing(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("BRIDGE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("BRIDGE_TOKEN", "x")
        began = time.monotonic()
        assert complete("bridge events show ") == []
        assert complete("bridge mappings show ") == []
        assert time.monotonic() - began < 2


# --- as a process ---------------------------------------------------------------------------------


def run(served, *args: str, **options) -> subprocess.CompletedProcess:
    env = os.environ | {"BRIDGE_URL": served.url, "BRIDGE_TOKEN": TOKEN} | options.pop("env", {})
    return subprocess.run([sys.executable, "-m", "bridge", *args], env=env, capture_output=True, timeout=60, **options)


@pytest.mark.slow
def test_version_is_quick_and_imports_little(served):
    found = run(served, "--version")
    assert (found.returncode, found.stdout.split()[0]) == (0, b"bridge")

    code = "import sys, bridge.cli.main; print([m for m in ('rich','orjson','structlog','pydantic','asyncio','http.client','bridge.daemon') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code]) == b"[]\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "args",
    [["events", "list", "--limit", "5000"], ["events", "list", "--limit", "5000", "--json"], ["replay", "--to", "-"]],
)
def test_a_reader_that_has_seen_enough_is_no_failure(served, args):
    for number in range(1000):
        served.world.store(number)
    env = os.environ | {"BRIDGE_URL": served.url, "BRIDGE_TOKEN": TOKEN}
    with subprocess.Popen(
        [sys.executable, "-m", "bridge", *args], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
        assert (process.wait(60), err) == (0, b"")


@pytest.mark.slow
@pytest.mark.parametrize(
    "env",
    [{"LC_ALL": "C"}, {"LANG": "C", "LC_ALL": ""}, {"PYTHONIOENCODING": "ascii"}, {"NO_COLOR": "1"}, {"TERM": "dumb"}],
)
def test_works_in_plain_surroundings(served, env):
    served.world.store(1, payload='{"name":"\u00fc\u4e2d\\ud800"}'.encode(), source="\u00fcber")

    for args in (["events", "list"], ["events", "show", event_id(1)], ["events", "show", event_id(1), "--json"]):
        found = run(served, *args, env=env)
        assert (found.returncode, found.stderr) == (0, b""), found.stderr
        assert b"ber" in found.stdout
        assert b"\x1b" not in found.stdout


@pytest.mark.slow
def test_a_full_disk_and_a_closed_output(served):
    served.world.store(1)
    with open("/dev/full", "wb") as full:
        env = os.environ | {"BRIDGE_URL": served.url, "BRIDGE_TOKEN": TOKEN}
        found = subprocess.run(
            [sys.executable, "-m", "bridge", "events", "list"], env=env, stdout=full, stderr=subprocess.PIPE, timeout=60
        )
    assert (found.returncode, found.stderr) == (1, b"bridge: No space left on device\n")
    closed = run(served, "events", "list", preexec_fn=lambda: os.close(1))
    assert b"Traceback" not in closed.stderr


@pytest.mark.slow
def test_ctrl_c_ends_a_tail_at_once(served):
    env = os.environ | {"BRIDGE_URL": served.url, "BRIDGE_TOKEN": TOKEN, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "bridge", "events", "tail"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        import threading
        import time

        def feed() -> None:
            number = 0
            while process.poll() is None and number < 5000:
                served.world.store(number)
                number += 1
                time.sleep(0.02)

        thread = threading.Thread(target=feed)
        thread.start()
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert process.stderr.read() == b""
        thread.join()
