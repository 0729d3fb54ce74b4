"""A canary in every secret field is found nowhere: no output, no file of the state folder, no answer, no other worker."""

import base64
import hashlib
import hmac
import json

import pytest

from tests.harness import request, wait_for, write_function

pytestmark = [pytest.mark.integration]

OWN, SIGNING, BEARER, LOGIN, DAEMON = (f"canary-{name}-7c1f93e2" for name in ("own", "sign", "bearer", "user", "env"))
CANARIES = (OWN, SIGNING, BEARER, LOGIN)

TELLS = """
import json, os


def handler(event, context):
    body = json.loads(event["body"])
    if body.get("poison"):
        raise ValueError("poison")
    return {"environment": sorted(os.environ), "own": len(os.environ.get("OWN_SECRET", ""))}
"""

CONFIG = """
runtime = {{ workers_max = 4 }}

[functions.keeper]
code = "{code}"
handler = "app.handler"
environment = {{ OWN_SECRET = {{ env = "OWN" }} }}
event_invoke = {{ retry_delays_s = [0.1, 0.1] }}

[functions.other]
code = "{code}"
handler = "app.handler"

[sources.signed]
type = "webhook"
path = "/signed"
function = "keeper"
verify = {{ scheme = "github", secrets = [{{ env = "SIGNING" }}] }}

[sources.bearer]
type = "webhook"
path = "/bearer"
function = "keeper"
verify = {{ scheme = "bearer", secrets = [{{ env = "BEARER" }}] }}

[sources.basic]
type = "webhook"
path = "/basic"
function = "keeper"
invocation_type = "RequestResponse"
verify = {{ scheme = "basic", secrets = [{{ env = "LOGIN" }}] }}

[sources.other]
type = "webhook"
path = "/other"
function = "other"
verify = "none"
invocation_type = "RequestResponse"
"""

JSON = {"Content-Type": "application/json"}


def test_a_canary_in_every_secret_field_is_found_nowhere(daemon, tmp_path, monkeypatch):
    # In the environment of the daemon and of the command line, which reads the same file.
    for name, value in {"OWN": OWN, "SIGNING": SIGNING, "BEARER": BEARER, "LOGIN": f"user:{LOGIN}"}.items():
        monkeypatch.setenv(name, value)
    code = write_function(tmp_path / "code", TELLS)
    running = daemon(CONFIG.format(code=code), SOMEBODY_ELSES=DAEMON, AWS_SECRET_ACCESS_KEY=DAEMON)
    seen = {}
    body = json.dumps({"poison": True})
    signature = "sha256=" + hmac.new(SIGNING.encode(), body.encode(), hashlib.sha256).hexdigest()
    good = running.post("/signed", body, **JSON, **{"X-Hub-Signature-256": signature})
    assert good.status == 202
    assert running.post("/bearer", "{}", **JSON, Authorization=f"Bearer {BEARER}").status == 202
    login = base64.b64encode(f"user:{LOGIN}".encode()).decode()
    kept = running.post("/basic", "{}", **JSON, Authorization=f"Basic {login}")
    other = running.post("/other", "{}", **JSON)

    # 1 a function has its own variables and nobody else's
    assert kept.json()["own"] == len(OWN)
    assert "OWN_SECRET" not in other.json()["environment"]
    for names in (kept.json()["environment"], other.json()["environment"]):
        assert not {"OWN", "SIGNING", "BEARER", "LOGIN", "SOMEBODY_ELSES", "BRIDGE_STATE"} & set(names)

    # 2 refusals do not tell what would have been right
    for number, (path, headers) in enumerate(
        [("/signed", {"X-Hub-Signature-256": "sha256=00"}), ("/bearer", {"Authorization": "Bearer x"}), ("/basic", {})]
    ):
        refused = running.post(path, "{}", **JSON, **headers)
        assert refused.status == 401
        seen[f"refusal {number}"] = refused.body + repr(refused.headers).encode()

    # 3 what the command line and the api show
    letters = wait_for(
        lambda: running.admin("GET", "/admin/v1/dlq").json()["dead_letters"], description="the poison is a dead letter"
    )
    event = letters[0]["id"]
    for verb in (
        ("config", "show", str(running.file)),
        ("events", "list", "--json"),
        ("events", "show", event),
        ("dlq", "show", event, "--json"),
        ("dlq", "list", "--json"),
        ("doctor",),
        ("logs", "keeper"),
        ("reload",),
    ):
        shown = running.cli(*verb)
        assert verb[0] == "doctor" or shown.returncode == 0, shown
        seen[" ".join(verb)] = (shown.stdout + shown.stderr).encode()
    for path in ("/metrics", "/ready", "/admin/v1/status", "/admin/v1/functions", "/admin/v1/doctor"):
        seen[path] = running.admin("GET", path).body
    seen["no token"] = request("GET", f"{running.api}/admin/v1/events").body
    seen["wrong token"] = request(
        "GET", f"{running.api}/admin/v1/events", headers={"Authorization": f"Bearer {BEARER}"}
    ).body

    # 4 what other processes could read of workers
    workers = {}
    for process in running.descendants():
        workers[process.pid] = " ".join([*process.cmdline(), *map("=".join, process.environ().items())])
    holders = [pid for pid, text in workers.items() if OWN in text]
    assert not [pid for pid, text in workers.items() if any(each in text for each in (SIGNING, BEARER, LOGIN, DAEMON))]
    assert len(holders) <= 1, "only the function's own worker may hold its variables"

    # 5 what is left behind
    token = running.token
    assert running.terminate() == 0
    seen["daemon's output"] = running.log().encode()
    for path in running.state.rglob("*"):
        if path.is_file() and path.name != "ballast":
            seen[str(path.relative_to(running.state))] = path.read_bytes()

    for place, content in seen.items():
        for canary in CANARIES:
            assert canary.encode() not in content, f"{canary} in {place}"
        assert login.encode() not in content, f"the login, encoded, in {place}"
        assert place == "token" or token.encode() not in content, f"the admin token in {place}"
    assert (running.state / "token").stat().st_mode & 0o777 == 0o600
