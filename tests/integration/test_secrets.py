"""A canary in every secret field is found nowhere: no output, no file of the state folder, no answer, no other worker."""

import base64
import hashlib
import hmac
import json
import signal
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.harness import ROOT, free_ports, request, wait_for, write_function
from tests.lambda_client import lambda_client
from tests.zips import zipped

pytestmark = [pytest.mark.integration]

OWN, SIGNING, BEARER, LOGIN, DAEMON = (f"canary-{name}-7c1f93e2" for name in ("own", "sign", "bearer", "user", "env"))
MADE, ACCESS, MQTT, KAFKA = (f"canary-{name}-7c1f93e2" for name in ("made", "access", "mqtt", "kafka"))
CANARIES = (OWN, SIGNING, BEARER, LOGIN, MADE, ACCESS, MQTT, KAFKA)

TELLS = """
import glob, json, os


def look(mark):
    # All of other processes that this one may read: environment, command line, names of mapped files, open files.
    found = []
    own = os.getpid()
    for path in glob.glob("/proc/[0-9]*/*") + glob.glob("/proc/[0-9]*/fd/*"):
        pid, name = path.split("/")[2:4]
        if int(pid) == own or name not in ("environ", "cmdline", "maps", "mem", "fd", "comm"):
            continue
        try:
            with open(path, "rb") as file:
                if mark in file.read(1_000_000):
                    found.append(path)
        except OSError:
            pass
    return found


def handler(event, context):
    body = json.loads(event["body"]) if "body" in event else {}
    if body.get("poison"):
        raise ValueError("poison")
    return {"environment": sorted(os.environ), "own": len(os.environ.get("OWN_SECRET", "")),
            "others": look(b"canary-")}
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

[access_keys.CANARY]
secret = {{ env = "ACCESS" }}

[connections.cluster]
type = "kafka"
bootstrap_servers = ["127.0.0.1:{closed}"]
sasl = {{ mechanism = "PLAIN", username = "bridge", password = {{ env = "KAFKA" }} }}

[mappings.unreachable]
source = "kafka://cluster/topic"
function = "other"

[sources.sensors]
type = "mqtt"
url = "mqtt://127.0.0.1:{closed}"
topics = ["t"]
function = "other"
username = "bridge"
password = {{ env = "MQTT" }}

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


def make(running):
    """Make a function whose variable is a secret, publish it, have it refused with another; return what it tells."""
    api = lambda_client(running, "CANARY", ACCESS)
    given = {
        "Runtime": "python3.12", "Handler": "app.handler", "Role": "arn:aws:iam::000000000000:role/r",
        "Code": {"ZipFile": zipped({"app.py": TELLS})}, "Environment": {"Variables": {"MADE_SECRET": MADE}},
    }  # fmt: skip
    api.create_function(FunctionName="made", Publish=True, **given)
    api.get_waiter("function_active_v2").wait(FunctionName="made", WaiterConfig={"Delay": 0.1})
    with pytest.raises(ClientError) as refused:  # a secret that is too long is not in the answer either
        api.update_function_configuration(FunctionName="made", Environment={"Variables": {"MADE_SECRET": MADE * 300}})
    assert MADE not in str(refused.value)
    with pytest.raises(ClientError) as refused:
        lambda_client(running, "CANARY", "wrong").list_functions()
    assert ACCESS not in str(refused.value.response)
    return json.loads(api.invoke(FunctionName="made", Payload=b"{}")["Payload"].read())


def test_a_canary_in_every_secret_field_is_found_nowhere(daemon, tmp_path, monkeypatch):
    # In the environment of the daemon and of the command line, which reads the same file.
    given = {"OWN": OWN, "SIGNING": SIGNING, "BEARER": BEARER, "LOGIN": f"user:{LOGIN}"}
    for name, value in (given | {"ACCESS": ACCESS, "MQTT": MQTT, "KAFKA": KAFKA}).items():
        monkeypatch.setenv(name, value)
    code = write_function(tmp_path / "code", TELLS)
    config = CONFIG.format(code=code, closed=free_ports(1)[0])
    running = daemon(config, SOMEBODY_ELSES=DAEMON, AWS_SECRET_ACCESS_KEY=DAEMON)
    seen = {}
    body = json.dumps({"poison": True})
    signature = "sha256=" + hmac.new(SIGNING.encode(), body.encode(), hashlib.sha256).hexdigest()
    good = running.post("/signed", body, **JSON, **{"X-Hub-Signature-256": signature})
    assert good.status == 202
    assert running.post("/bearer", "{}", **JSON, Authorization=f"Bearer {BEARER}").status == 202
    login = base64.b64encode(f"user:{LOGIN}".encode()).decode()
    kept = running.post("/basic", "{}", **JSON, Authorization=f"Basic {login}")
    other = running.post("/other", "{}", **JSON)

    made = make(running)

    # 1 a function has its own variables and nobody else's
    assert kept.json()["own"] == len(OWN)
    assert "OWN_SECRET" not in other.json()["environment"]
    for names in (kept.json()["environment"], other.json()["environment"]):
        assert not {"OWN", "SIGNING", "BEARER", "LOGIN", "SOMEBODY_ELSES", "BRIDGE_STATE"} & set(names)
    # and reads none of another worker's, nor of the daemon's, out of /proc
    assert (other.json()["others"], made["others"]) == ([], [])

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
    names = ("status", "functions", "doctor", "mappings", "sources", "keys", "logs/made")
    for path in ("/metrics", "/ready", *(f"/admin/v1/{name}" for name in names)):
        seen[path] = running.admin("GET", path).body
    seen["no token"] = request("GET", f"{running.api}/admin/v1/events").body
    seen["wrong token"] = request(
        "GET", f"{running.api}/admin/v1/events", headers={"Authorization": f"Bearer {BEARER}"}
    ).body

    # 4 what other processes could read of workers
    workers = {}
    for process in running.descendants():
        names = [region.path for region in process.memory_maps()]
        workers[process.pid] = " ".join([*process.cmdline(), *map("=".join, process.environ().items()), *names])
    for pid in (running.process.pid, *workers):
        limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
        assert next(line for line in limits if "core file" in line).split()[4:6] == ["0", "0"], pid
    holders = [pid for pid, text in workers.items() if OWN in text]
    assert not [
        pid
        for pid, text in workers.items()
        if any(each in text for each in (SIGNING, BEARER, LOGIN, DAEMON, ACCESS, MQTT, KAFKA))
    ]
    assert len(holders) <= 1, "only the function's own worker may hold its variables"
    assert sum(MADE in text for text in workers.values()) <= 1

    # 5 what is left behind
    token = running.token
    running.process.send_signal(signal.SIGABRT)  # what would dump core, could it
    assert running.wait(60) == -signal.SIGABRT
    cores = [path.name for path in (*ROOT.iterdir(), *tmp_path.rglob("*")) if path.name.startswith("core")]
    assert not cores
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
