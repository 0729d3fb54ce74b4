"""SASL OAUTHBEARER by `token = "module:function"`, in a whole daemon on a real broker: had, refused, had again."""

import asyncio
import json

import pytest
from aiokafka import AIOKafkaProducer

from tests.brokers.clients import create_topic
from tests.crash.rig import LedgerServer
from tests.harness import ROOT, write_function

pytestmark = [pytest.mark.integration]

TELLS = """
import base64, json, os, socket

host, port = os.environ["LEDGER"].split(":")
connection = socket.create_connection((host, int(port)))
answers = connection.makefile("rb")


def handler(event, context):
    for records in event["records"].values():
        for record in records:
            value = int(base64.b64decode(record["value"]))
            connection.sendall(json.dumps([context.function_name, value]).encode() + b"\\n")
            answers.readline()
"""
TOKENS = """
import asyncio, base64, json, os, time

LASTS_S = float(os.environ.get("TOKEN_LASTS_S", "600"))


def part(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def unsecured(lasts_s):
    now = time.time()
    return f"{part({'alg': 'none'})}.{part({'sub': 'canary', 'iat': now - 700, 'exp': now + lasts_s})}."


def good():
    with open(os.environ["ASKED"], "a") as file:
        file.write(f"{time.time()}\\n")
    return unsecured(LASTS_S)


async def later():
    await asyncio.sleep(0.01)
    return good()


def expired():
    return unsecured(-60)


def nonsense():
    return "canary-is-no-jwt"


def nothing():
    return None


def raises():
    raise PermissionError("the vault is sealed")
"""
CONNECTION = """
[connections.{name}]
type = "kafka"
bootstrap_servers = ["{address}"]
sasl = {{ mechanism = "OAUTHBEARER", token = "tokens:{name}" }}

[functions.{name}]
code = "{code}"
handler = "app.handler"
environment = {{ LEDGER = "{ledger}" }}

[mappings.{name}]
source = "kafka://{name}/{topic}"
function = "{name}"
maximum_batching_window_s = 0.05
allow_remote = true
"""


@pytest.fixture
def world(daemon, tmp_path):
    ledger = LedgerServer(tmp_path / "told.jsonl")
    yield World(daemon, ledger, tmp_path)
    ledger.close()


class World:
    def __init__(self, daemon, ledger, folder):
        self._daemon, self._ledger = daemon, ledger
        self._code = write_function(folder / "code", TELLS)
        self._modules = write_function(folder / "modules", TOKENS, module="tokens")
        self._asked = folder / "asked"

    async def run(self, address, topic, *names, **environment):
        places = {"address": address, "topic": topic, "code": self._code, "ledger": self._ledger.address}
        config = "".join(CONNECTION.format(name=name, **places) for name in names)
        environment |= {"PYTHONPATH": f"{self._modules}:{ROOT}", "ASKED": str(self._asked)}
        self.daemon = await asyncio.to_thread(lambda: self._daemon(config, **environment))

    def told(self, name):
        lines = [json.loads(line) for line in self._ledger.path.read_text().splitlines()]
        return [value for function, value in lines if function == name]

    def asked(self):
        return len(self._asked.read_text().splitlines()) if self._asked.exists() else 0

    async def status(self, name):
        answer = await asyncio.to_thread(self.daemon.admin, "GET", f"/admin/v1/mappings/{name}")
        return answer.json()


async def put(bootstrap, topic, *values):
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        for value in values:
            await producer.send_and_wait(topic, b"%d" % value)


async def test_tokens_let_in_whether_their_function_is_a_coroutine_or_not(
    world, kafka_secured, kafka_topic, wait_until
):
    topic = await kafka_topic()
    await put(kafka_secured.bootstrap, topic, 1, 2)

    await world.run(kafka_secured.sasl, topic, "good", "later")

    for name in ("good", "later"):
        await wait_until(lambda name=name: world.told(name) == [1, 2], description=f"{name} lets in")
    assert world.asked() >= 2


WRONG = {
    "expired": 'the broker does not take the token: {"status":"invalid_token"}',
    "nonsense": 'the broker does not take the token: {"status":"invalid_token"}',
    "nothing": "sasl.token tokens:nothing: returned no text but NoneType",
    "raises": "sasl.token tokens:raises: PermissionError: the vault is sealed",
}


async def test_a_wrong_token_is_said_in_one_line_without_the_token(world, kafka_secured, kafka_topic, wait_until):
    topic = await kafka_topic()
    await world.run(kafka_secured.sasl, topic, *WRONG)

    for name, why in WRONG.items():
        line = f"kafka {name}: cannot connect: {kafka_secured.sasl}: AuthenticationFailedError: {why}"

        async def says_so(name=name, line=line):
            return (await world.status(name))["state_transition_reason"] == line

        await wait_until(says_so, description=line)
    assert "canary" not in world.daemon.log()
    assert "task_failed" not in world.daemon.log()


@pytest.mark.slow
async def test_the_token_is_asked_for_again_when_the_broker_ends_the_session(world, kafka_broker, wait_until):
    broker = kafka_broker({"listener.name.sasl.oauthbearer.connections.max.reauth.ms": "60000"})
    await create_topic(broker.bootstrap, "orders", partitions=2)
    await world.run(broker.endpoints.sasl, "orders", "good", TOKEN_LASTS_S="2")
    sent = 0

    async def sends_until(asked):
        nonlocal sent
        while world.asked() < asked:
            await put(broker.bootstrap, "orders", *range(sent, sent + 5))
            sent += 5
            await asyncio.sleep(0.2)

    await sends_until(9)  # three of them to bootstrap, to read and to coordinate
    await wait_until(lambda: set(world.told("good")) == set(range(sent)), description="all is read")

    assert sorted(world.told("good")) == list(range(sent)), "and once"
    assert world.daemon.log().count('"shards_assigned"') == 1, "the membership lives on"
    assert (await world.status("good"))["state_transition_reason"] == "USER_INITIATED"
