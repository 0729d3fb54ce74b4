"""The daemon itself through the api: health, readiness, metrics, status, doctor, reload, logs."""

from dataclasses import replace

import pytest

from bridge.api.app import ReloadResult
from bridge.core.logging_config import LoggingConfig
from bridge.util import telemetry


async def test_health_and_readiness(world):
    assert (await world.ask("GET", "/health", token=None)).json() == {"status": "ok"}
    assert (await world.ask("GET", "/ready", token=None)).json() == {"status": "ready", "problems": [], "troubles": []}
    world.problems.append("task retention has failed: OSError")

    answer = await world.ask("GET", "/ready", token=None)

    assert answer.status == 503
    assert answer.json() == {"status": "not ready", "problems": ["task retention has failed: OSError"], "troubles": []}
    assert (await world.ask("GET", "/health", token=None)).status == 200


async def test_a_mapping_in_trouble_is_told_and_events_are_taken_all_the_same(world):
    world.troubles.append("mapping orders is in trouble for 61 s: no broker")

    answer = await world.ask("GET", "/ready", token=None)

    assert answer.status == 200
    assert answer.json() == {"status": "ready", "problems": [], "troubles": world.troubles}
    assert (await world.get("/status")).json()["troubles"] == world.troubles


async def test_metrics(world):
    telemetry.RELOADS.labels(result="ok").inc(0)

    answer = await world.ask("GET", "/metrics", token=None)

    assert answer.headers["content-type"].startswith("text/plain")
    assert b"# TYPE bridge_reloads_total counter" in answer.body


async def test_status(world):
    status = (await world.get("/status")).json()

    assert status["version"] == "9.9.9"
    assert status["uptime_s"] >= 0
    assert status["listeners"] == {}
    assert [function["name"] for function in status["functions"]] == ["hello"]
    assert status["lanes"][0]["waiting"] == 2
    assert status["jobs"] == []
    assert (await world.get("/functions")).json()["functions"] == status["functions"]


async def test_nothing_secret_of_a_function_is_shown(world):
    latest = world.catalog.known["hello"].latest
    object.__setattr__(latest, "environment", {"DATABASE_URL": "canary-5d"})

    for path in ("/status", "/functions", "/doctor"):
        assert b"canary-5d" not in (await world.get(path)).body


async def test_doctor_names_problems_first(world):
    world.problems.append("disk")
    world.facts.append(("seccomp", False, "not in this kernel"))

    facts = (await world.get("/doctor")).json()["facts"]

    assert facts == [
        {"name": "ready", "ok": False, "detail": "disk"},
        {"name": "landlock", "ok": True, "detail": "ABI 7"},
        {"name": "seccomp", "ok": False, "detail": "not in this kernel"},
    ]


async def test_reload_says_what_changed_or_every_mistake(world):
    assert (await world.post("/reload")).json() == {"changes": ["functions.hello: timeout_s 3 -> 5"]}
    world.reloaded = ReloadResult(ok=False, errors=("bridge.toml:1: x", "bridge.toml:2: y"))

    answer = await world.post("/reload")

    assert answer.status == 422
    assert answer.json() == {
        "error": "the configuration has mistakes; nothing changed",
        "mistakes": ["bridge.toml:1: x", "bridge.toml:2: y"],
    }


async def test_logs_of_a_function(world):
    world.logs.lines.extend((float(n), "stream", f"line {n}") for n in range(5))

    lines = (await world.get("/logs/hello?lines=2")).lines()

    assert lines == [
        {"at": 3.0, "stream": "stream", "line": "line 3"},
        {"at": 4.0, "stream": "stream", "line": "line 4"},
    ]
    assert (await world.get("/logs/hello?lines=0")).lines() == []
    assert len((await world.get("/logs/hello:$LATEST")).lines()) == 5


async def test_logs_of_a_group(world):
    world.logs.lines.append((1.0, "stream", "line"))
    hello = world.catalog.get("hello")
    latest = replace(hello.latest, logging=LoggingConfig(group="/shop/all"))
    world.catalog.known["other"] = replace(hello, name="other", latest=latest)

    assert (await world.get("/logs/%2Fshop%2Fall")).lines() == [{"at": 1.0, "stream": "stream", "line": "line"}]
    assert world.logs.asked[-1] == ("other",)
    assert (await world.get("/logs/%2Faws%2Flambda%2Fhello")).status == 200
    assert world.logs.asked[-1] == ("hello",)
    assert (await world.get("/logs/%2Fshop%2Fnone")).status == 404


async def test_logs_follow_until_the_client_leaves(world):
    world.logs.lines.append((1.0, "stream", "new"))

    answer = await world.get("/logs/hello?lines=0&follow=true", until=1)

    assert answer.lines() == [{"at": 1.0, "stream": "stream", "line": "new"}]


@pytest.mark.parametrize(
    ("path", "status"),
    [("/logs/nope", 404), ("/logs/hello?lines=-1", 400), ("/logs/hello?lines=10001", 400), ("/logs/hello?follow=x", 400),
     ("/logs/hello?tail=1", 400), ("/status?x=1", 400), ("/doctor?x=1", 400), ("/functions?x=1", 400), ("/redrives?x=1", 400)],
)  # fmt: skip
async def test_what_is_wrong_is_named(world, path, status):
    answer = await world.get(path)

    assert (answer.status, bool(answer.error)) == (status, True)


async def test_a_client_that_leaves_before_its_body_is_whole_is_not_answered(world):
    sent = []
    messages = iter([{"type": "http.request", "body": b'{"a', "more_body": True}, {"type": "http.disconnect"}])

    async def receive():
        return next(messages)

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/admin/v1/reload", "raw_path": b"/admin/v1/reload", "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"authorization", b"Bearer secret-token-canary")],
    }  # fmt: skip
    await world.app(scope, receive, send)

    assert sent == []
