"""Who may talk to the api: the token, the Host, and never a web page. On every path."""

import pytest
import structlog

from tests.unit.api.harness import TOKEN, World

OPEN = ["/health", "/ready", "/metrics"]
CLOSED = ["/admin/v1/status", "/admin/v1/events", "/admin/v1/doctor", "/nowhere", "/", "/health/", "//health"]


@pytest.mark.parametrize("path", OPEN)
async def test_health_readiness_and_metrics_ask_for_no_token(world, path):
    assert (await world.ask("GET", path, token=None)).status == 200


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer \xfc",
    ],
)
async def test_everything_else_asks_for_the_token(world, path, header):
    headers = {} if header is None else {"authorization": header}

    answer = await world.ask("GET", path, token=None, headers=headers)

    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "Bearer TOKEN" in answer.error
    assert TOKEN not in answer.error


async def test_the_scheme_may_be_written_in_any_case_and_two_headers_are_none(world):
    assert (
        await world.ask("GET", "/admin/v1/status", token=None, headers={"authorization": f"bearer {TOKEN}"})
    ).status == 200
    twice = [("authorization", f"Bearer {TOKEN}"), ("authorization", f"Bearer {TOKEN}")]
    assert (await world.ask("GET", "/admin/v1/status", token=None, headers=twice)).status == 401


async def test_an_empty_token_opens_nothing():
    world = World()
    world.app._token = ""
    assert (await world.ask("GET", "/admin/v1/status", token="")).status == 401


@pytest.mark.parametrize("path", [*OPEN, "/admin/v1/status", "/nowhere"])
@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8581", "10.0.0.1", "0.0.0.0", "127.0.0.1.evil.example", "localhost.evil.example", "xlocalhost",
     "[::2]", "::1", "2130706433", "0x7f.1", "128.0.0.1", "", "localhost:8581:1", "127.0.0.1@evil.example", "[::ffff:10.0.0.1]"],
)  # fmt: skip
async def test_a_host_that_is_not_ours_is_refused_on_every_path(world, path, host):
    answer = await world.ask("GET", path, host=host)

    assert answer.status == 403
    assert "neither loopback nor named" in answer.error


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:1", "localhost.", "127.0.0.1", "127.0.0.1:8581", "127.8.9.1:80", "[::1]", "[::1]:8581"],
)
async def test_loopback_is_ours_with_any_port(world, host):
    assert (await world.ask("GET", "/health", host=host)).status == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("Bridge.internal", 200),
        ("bridge.internal:8581", 200),
        ("bridge.internal.evil", 403),
        ("api.internal", 403),
        ("api.internal:9", 200),
        ("api.internal:10", 403),
    ],
)
async def test_hosts_names_further_ones(host, status):
    world = World(hosts=("bridge.internal", "api.internal:9"))
    assert (await world.ask("GET", "/health", host=host)).status == status


async def test_no_host_and_two_hosts_are_refused(world):
    assert (await world.ask("GET", "/health", host=None)).status == 403
    assert (await world.ask("GET", "/health", headers=[("host", "localhost")])).status == 403


@pytest.mark.parametrize("path", [*OPEN, "/admin/v1/status", "/admin/v1/invoke/hello"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "HEAD"])
@pytest.mark.parametrize(
    "headers",
    [{"origin": "http://localhost:8581"}, {"origin": "null"}, {"origin": ""}, {"sec-fetch-site": "cross-site"},
     {"sec-fetch-site": "same-site"}, {"sec-fetch-site": ""}, {"sec-fetch-site": "odd"}],
)  # fmt: skip
async def test_a_web_page_reaches_nothing_with_or_without_a_token(world, path, method, headers):
    assert (await world.ask(method, path, headers=headers)).status == 403
    assert (await world.ask(method, path, headers=headers, token=None)).status == 403


@pytest.mark.parametrize("site", ["none", "same-origin", "Same-Origin"])
async def test_a_browsers_own_requests_pass(world, site):
    assert (await world.ask("GET", "/health", headers={"sec-fetch-site": site})).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("GET", "/admin/v1", 404), ("GET", "/admin/v1/", 404), ("GET", "/admin/v2/status", 404),
     ("GET", "/admin/v1/events/", 404), ("GET", "/admin/v1/../v1/status", 404), ("GET", "/admin/v1/%2e%2e/status", 404),
     ("POST", "/admin/v1/status", 405), ("DELETE", "/admin/v1/events", 405), ("GET", "/admin/v1/dlq/purge", 405),
     ("TRACE", "/health", 405), ("PUT", "/metrics", 405), ("GET", "/admin/v1/events/%ff%fe", 400)],
)  # fmt: skip
async def test_unknown_paths_and_methods(world, method, path, status):
    answer = await world.ask(method, path)

    assert answer.status == status, answer.body
    assert answer.error
    if status == 405:
        assert answer.headers["allow"]


async def test_head_is_get_without_a_body(world):
    answer = await world.ask("HEAD", "/admin/v1/status")

    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["content-length"]) > 10
    assert (await world.ask("HEAD", "/admin/v1/events/tail")).status == 200


async def test_a_fault_is_one_line_for_the_caller_and_a_traceback_for_the_log(world):
    def broken() -> list[str]:
        raise RuntimeError(f"with {TOKEN}")

    object.__setattr__(world.services, "readiness", broken)
    with structlog.testing.capture_logs() as logs:
        answer = await world.ask("GET", "/admin/v1/status")

    assert answer.status == 500
    assert answer.error == "internal error; the daemon's log says more"
    assert [entry["event"] for entry in logs] == ["request_failed"]


async def test_no_request_logs_the_token(world):
    with structlog.testing.capture_logs() as logs:
        for path in ("/admin/v1/status", f"/admin/v1/{TOKEN}", f"/admin/v1/events?{TOKEN}=1"):
            await world.ask("GET", path)
            await world.ask("GET", path, token=TOKEN + "x")

    assert TOKEN not in repr(logs)


async def test_lifespan_is_answered(world):
    sent = []
    events = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive():
        return next(events)

    async def send(message):
        sent.append(message["type"])

    await world.app({"type": "lifespan"}, receive, send)

    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
