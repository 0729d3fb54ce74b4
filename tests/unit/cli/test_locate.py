"""How the command line finds its daemon, and what it says when it does not."""

import json
import os

import pytest

from tests.unit.api.harness import TOKEN


def say(served, **known) -> None:
    (served.state / "daemon.json").write_text(json.dumps({"url": served.url, "pid": os.getpid()} | known))


def test_by_the_state_folder_named_by_option_or_environment(served, alone):
    assert alone("--state", str(served.state), "events", "list").code == 0
    assert alone("events", "list", env={"BRIDGE_STATE": str(served.state)}).code == 0


def test_by_state_in_the_configuration_relative_to_it(served, alone, tmp_path, monkeypatch):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "my.toml").write_text('state = "../${NAME:-state}"\n')
    assert alone("--config", "conf/my.toml", "events", "list").code == 0
    (tmp_path / "bridge.toml").write_text('state = "state"\n')
    assert alone("events", "list").code == 0


def test_by_dot_bridge_in_the_working_directory(served, alone, tmp_path):
    served.state.rename(tmp_path / ".bridge")

    assert alone("events", "list").code == 0


def test_by_the_folder_of_run_local_where_no_other_daemon_runs(served, alone, tmp_path):
    served.state.rename(tmp_path / ".bridge-local")
    gone = tmp_path / ".bridge"
    gone.mkdir()
    (gone / "daemon.json").write_text(json.dumps({"url": "http://127.0.0.1:1", "pid": 2**22 + 1}))

    found = alone("events", "list")
    assert (found.code, found.err) == (0, "no events yet\n")
    assert alone("--url", served.url, "events", "list").code == 0
    assert alone("--state", str(gone), "events", "list").code == 3
    assert alone("events", "list", env={"BRIDGE_STATE": str(gone)}).code == 3


def test_of_two_daemons_that_of_the_usual_folder_is_asked_and_it_is_said(served, alone, tmp_path):
    (tmp_path / "bridge.toml").write_text('state = "state"\n')
    trial = tmp_path / "state-local"
    trial.mkdir()
    (trial / "daemon.json").write_text(json.dumps({"url": "http://127.0.0.1:1", "pid": os.getpid()}))
    (trial / "token").write_text("other\n")

    found = alone("events", "list")

    assert found.code == 0
    assert found.err.splitlines() == [
        f"bridge: this asks the daemon of {served.state}; for that of `bridge run --local`: --state {trial}",
        "no events yet",
    ]
    assert alone("--state", str(trial), "events", "list").code == 3


def test_by_url_and_token(served, alone):
    assert alone("--url", served.url, "--token", TOKEN, "events", "list").code == 0
    assert alone("--url", served.url + "/", "--token", TOKEN, "events", "list").code == 0
    assert alone("events", "list", env={"BRIDGE_URL": served.url, "BRIDGE_TOKEN": TOKEN}).code == 0
    assert alone("--url", served.url, "--state", str(served.state), "events", "list").code == 0


def test_the_folders_token_goes_to_its_own_daemon_only(served, alone):
    say(served, url="http://127.0.0.1:1")

    found = alone("--url", served.url, "--state", str(served.state), "events", "list")

    assert (found.code, "a token is needed" in found.err) == (2, True)


def test_no_daemon_is_3_and_says_how_to_start_one(alone):
    found = alone("events", "list")

    assert found.code == 3
    assert found.err.splitlines()[0].startswith("bridge: no daemon runs on the state folder ")
    assert "start one with `bridge run [FILE]`" in found.err


@pytest.mark.parametrize(
    "command",
    [
        "events list",
        "events show x",
        "events tail",
        "dlq list",
        "dlq redrive",
        "replays list",
        "replay",
        "reload",
        "logs x",
        "invoke x",
    ],
)
def test_no_daemon_is_3_for_every_verb_that_needs_one(alone, command):
    assert alone(*command.split()).code == 3
    assert alone("--url", "http://127.0.0.1:1", "--token", "x", *command.split()).code == 3


def test_a_daemon_that_was_killed_is_no_daemon(served, alone):
    say(served, pid=2**22 + 1)

    found = alone("--state", str(served.state), "events", "list")

    assert (found.code, "has ended" in found.err) == (3, True)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "{}", '{"url": 5}', "\x00"])
def test_a_daemon_file_that_says_nothing(served, alone, text):
    (served.state / "daemon.json").write_text(text)

    found = alone("--state", str(served.state), "events", "list")

    assert (found.code, "daemon.json" in found.err) == (3, True)
    assert "Traceback" not in found.err


@pytest.mark.parametrize("token", ["wrong", "x" * 5000])
def test_a_wrong_token_is_2(served, alone, token):
    found = alone("--url", served.url, "--token", token, "events", "list")

    assert (found.code, "refuses the token" in found.err) == (2, True)
    assert token not in found.err


@pytest.mark.parametrize("token", ["a b", "a\nb", "\u00fc"])
def test_a_token_that_cannot_be_one_is_2(served, alone, token):
    assert alone("--url", served.url, "--token", token, "events", "list").code == 2


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8581",
        "ftp://127.0.0.1",
        "http://",
        "http://x:99999",
        "http://x:y",
        "http://[::1",
        "http://127.0.0.1/?a=1",
        "",
    ],
)
def test_urls_that_are_none_are_2(alone, url):
    assert alone("--url", url, "--token", "x", "events", "list").code in (2, 3 if not url else 2)


def test_a_configuration_with_mistakes_is_2(alone, tmp_path):
    (tmp_path / "bridge.toml").write_text("state = \n")

    found = alone("events", "list")

    assert (found.code, "bridge.toml:1" in found.err) == (2, True)


def test_a_name_that_resolves_to_nothing_is_3(alone):
    assert alone("--url", "http://no-such-host.invalid", "--token", "x", "events", "list").code == 3


def test_a_server_that_is_not_bridge(alone, tmp_path):
    import http.server
    import threading

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.handle_request, daemon=True)
        thread.start()
        found = alone("--url", f"http://127.0.0.1:{server.server_port}", "--token", "x", "events", "list")
        thread.join(5)

    assert (found.code, "not JSON" in found.err) == (1, True)
