"""The api of a world whose functions can be made, over a store in memory."""

import base64
import contextlib
import json
from dataclasses import replace

from bridge.api.app import AccessRules, ApiApp
from bridge.api.awslambda.control import MadeFunctions
from bridge.api.awslambda.made_layers import MadeLayers
from bridge.api.awslambda.sealing import Sealing
from bridge.core.spaces import Space
from bridge.registry.attached import NoDocuments
from bridge.registry.attachments import Attachments
from bridge.registry.catalog import FunctionCatalog
from bridge.registry.layers import pack_layer, unpack_layer
from bridge.registry.made import name_of, pack, parts, unpack
from bridge.registry.secrets import Seal
from bridge.store.packages import PackageStore
from tests import zips
from tests.harness import wait_until
from tests.unit.api.harness import TOKEN, World

FUNCTIONS = "/2015-03-31/functions"
ROLE = "arn:aws:iam::000000000000:role/r"
ARN = "arn:aws:lambda:us-east-1:000000000000:function:made"


class MemoryFunctions:
    """Keeps what the rows say, so that every answer has been through them."""

    def __init__(self):
        self.rows, self.numbers = {}, {}

    async def load(self):
        numbers = self.numbers
        found = {key: unpack(key, rows, last_version=numbers.get(name_of(key), 0)) for key, rows in self.rows.items()}
        return found, dict(self.numbers)

    async def erase(self):
        self.rows, self.numbers = {}, {}

    async def save(self, key, *, before, after):
        if after is None:
            del self.rows[key]
            return
        self.rows[key] = {row: pack(part) for row, part in parts(after).items()}
        self.numbers[after.name] = max(self.numbers.get(after.name, 0), after.last_version)


class MemoryLayers:
    """Keeps versions of layers as their rows."""

    def __init__(self):
        self.rows, self.numbers = {}, {}

    async def load(self):
        return [unpack_layer(*key, document) for key, document in self.rows.items()], dict(self.numbers)

    async def save(self, version):
        self.rows[version.layer, version.version] = pack_layer(version)
        self.numbers[version.layer] = max(self.numbers.get(version.layer, 0), version.version)

    async def delete(self, version):
        self.rows.pop((version.layer, version.version), None)


class Made:
    """The api of a world whose functions can be made."""

    def __init__(self, folder, store, layers=None, kinds=None, kms=None, rules=None, **services):
        """`kinds`: stores of what hangs on functions, by kind."""
        self.layers = layers or MemoryLayers()
        self.world = World()
        self.changed = []
        self.catalog = FunctionCatalog([self.world.catalog.get("hello")])
        self.packages = PackageStore(folder / "packages")
        self.attached = Attachments(lambda kind: (kinds or {}).get(kind) or NoDocuments())
        home = Space("000000000000", "us-east-1")
        self.sealing = Sealing(Seal(folder / "key"), arn_of=home.arn, clock=self.world.clock, kms=kms)
        self.made = MadeFunctions(
            store=store, layers=MadeLayers(self.layers), packages=self.packages, sealing=self.sealing, catalog=self.catalog,
            home=home, clock=self.world.clock,
            changed=self.changed.append, spawn=self.world._spawn, attached=self.attached,
        )  # fmt: skip
        self.world.invoker._catalog = self.catalog
        replaced = replace(
            self.world.services,
            made=self.made,
            attached=self.attached,
            functions=self.catalog.functions,
            function=self.catalog.get,
            **services,
        )
        self.world.app = ApiApp(replaced, token=TOKEN, rules=rules or AccessRules(asks=False))

    async def ask(self, method, path, body=None, status=None, **more):
        data = b"" if body is None else json.dumps(body).encode()
        answer = await self.world.ask(method, path, body=data, token=None, **more)
        if status is not None:
            assert answer.status == status, answer.body
        return answer

    async def json(self, method, path, body=None, status=200, **more):
        return (await self.ask(method, path, body, status, **more)).json()

    async def refused(self, method, path, body, status, code, **more):
        answer = await self.ask(method, path, body, **more)
        assert (answer.status, answer.headers["x-amzn-errortype"]) == (status, code), answer.body
        return answer.json().get("message") or answer.json()["Message"]

    async def create(self, name="made", **more):
        made = await self.json("POST", FUNCTIONS, request(FunctionName=name, **more), 201)
        await self.settled(name)
        return made

    @contextlib.asynccontextmanager
    async def opened(self, **more):
        """Make the function `made`, with a version 1 to which its alias `prod` points; close the world in the end."""
        await self.made.open()
        await self.create(Publish=True, **more)
        await self.json("POST", f"{FUNCTIONS}/made/aliases", {"Name": "prod", "FunctionVersion": "1"}, 201)
        yield self
        await self.world.close()

    def hold(self):
        """Leave the next change unsettled until what is returned is awaited."""
        held, spawn = [], self.made._spawn
        self.made._spawn = lambda work, name: held.append(work)

        async def release():
            self.made._spawn = spawn
            await held.pop()

        return release

    async def settled(self, name="made"):
        await wait_until(lambda: not self.made.state(name), description="it has settled")


def zipped(text="def handler(event, context): pass", name="app.py"):
    return base64.b64encode(zips.zipped({name: text})).decode()


def request(**more):
    base = {"FunctionName": "made", "Runtime": "python3.13", "Role": ROLE, "Handler": "app.handler"}
    given = base | {"Code": {"ZipFile": zipped()}} | more
    return {name: value for name, value in given.items() if value is not None}
