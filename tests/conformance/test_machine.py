"""Lambda's API against a model that is a dict, over any order of changes and kills.

`BRIDGE_FUZZ` is how many lives are tried, each some dozens of changes; `kill` leaves everything as kill -9 does, and
opens the store anew from the files.
"""

import asyncio
import base64
import copy
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from bridge.core.function import LATEST
from bridge.store.functions import SqliteFunctions
from tests.unit.api.making import FUNCTIONS, Made, request, zipped

LIVES = max(1, int(os.environ.get("BRIDGE_FUZZ", "480")) // 20)
STEPS = 40
ACCOUNT_CONCURRENCY, UNRESERVED_MIN = 1_000, 100
CODES = {text: zipped(text) for text in ("x = 1", "x = 2")}
NAMES = st.sampled_from(["one", "two"])
TEXTS = st.sampled_from(sorted(CODES))
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "Timeout": st.sampled_from([3, 9]),
        "Description": st.sampled_from(["", "a"]),
        "Environment": st.sampled_from([{}, {"AB": "1"}, {"AB": "2", "CD": "3"}]).map(lambda each: {"Variables": each}),
    },
)
VERSIONS = st.sampled_from(["1", "2", "3"])
ALIASES = st.sampled_from(["live", "next"])
WEIGHTS = st.none() | st.tuples(VERSIONS, st.sampled_from([0.0, 0.25]))
QUALIFIERS = st.sampled_from(["", "1", "live"])
CONFIGS = st.fixed_dictionaries(
    {}, optional={"MaximumRetryAttempts": st.integers(0, 2), "MaximumEventAgeInSeconds": st.sampled_from([60, 90])}
)


def sha(text: str) -> str:
    return base64.b64encode(hashlib.sha256(base64.b64decode(CODES[text])).digest()).decode()


class Functions(RuleBasedStateMachine):
    """What the api should hold: `functions` by name, each a dict of dicts, and the last version of every name."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.root = Path(tempfile.mkdtemp())
        self.boots = 0
        self.functions: dict[str, dict] = {}
        self.numbers: dict[str, int] = {}
        self.folder = self.root / "0"
        self.folder.mkdir()
        self.open()

    def open(self) -> None:
        self.store = self.runner.run(SqliteFunctions.open(self.folder / "catalog.db"))
        self.api = Made(self.folder, self.store)
        self.runner.run(self.api.made.open())

    def close(self) -> None:
        self.runner.run(self.api.world.close())
        self.runner.run(self.store.close())

    def teardown(self) -> None:
        self.close()
        self.runner.close()
        shutil.rmtree(self.root)

    def call(self, method, path, body=None, *, settles=True):
        async def ask():
            answer = await self.api.ask(method, path, body)
            for name in self.functions if settles else ():
                await self.api.settled(name)
            return answer

        answer = self.runner.run(ask())
        self.said = answer.body
        return answer.status, answer.json() if answer.body else {}

    def expect(self, found, status):
        assert found[0] == status, (found, status)
        return found[1]

    # --- functions ------------------------------------------------------------------------------------------------

    @rule(name=NAMES, text=TEXTS, more=SETTINGS, publishes=st.booleans())
    def create(self, name, text, more, publishes):
        body = request(FunctionName=name, Code={"ZipFile": CODES[text]}, Publish=publishes, **more)
        found = self.call("POST", FUNCTIONS, body)
        if name in self.functions:
            self.expect(found, 409)
            return
        latest = {
            "CodeSha256": sha(text),
            "Timeout": more.get("Timeout", 3),
            "Description": more.get("Description", ""),
            "Environment": more.get("Environment", {}).get("Variables", {}),
        }
        self.functions[name] = {
            "latest": latest, "versions": {}, "aliases": {}, "configs": {}, "reserved": None, "tags": {}, "published": "",
        }  # fmt: skip
        if publishes:
            self.published(name)
        self.expect(found, 201)
        self.runner.run(self.api.settled(name))

    @rule(name=NAMES, text=TEXTS, publishes=st.booleans(), is_dry=st.booleans())
    def update_code(self, name, text, publishes, is_dry):
        body = {"ZipFile": CODES[text], "Publish": publishes, "DryRun": is_dry}
        found = self.call("PUT", f"{FUNCTIONS}/{name}/code", body)
        if self.is_there(name, found, 200) and not is_dry:
            self.functions[name]["latest"]["CodeSha256"] = sha(text)
            if publishes:
                assert found[1]["Version"] == self.published(name)

    @rule(name=NAMES, more=SETTINGS)
    def update_configuration(self, name, more):
        if self.is_there(name, self.call("PUT", f"{FUNCTIONS}/{name}/configuration", more), 200):
            self.configured(name, more)

    def configured(self, name, more):
        given = {**more, **({"Environment": more["Environment"]["Variables"]} if "Environment" in more else {})}
        self.functions[name]["latest"].update(given)

    @rule(name=NAMES, description=st.sampled_from([None, "b"]))
    def publish(self, name, description):
        body = {} if description is None else {"Description": description}
        found = self.call("POST", f"{FUNCTIONS}/{name}/versions", body)
        if self.is_there(name, found, 201):
            assert found[1]["Version"] == self.published(name, description)

    def published(self, name, description=None):
        """Publish in the model; return the number: that of the last one where only the description differs."""
        function = self.functions[name]
        last = function["versions"].get(function["published"])
        if last is not None and {**last, "Description": ""} == {**function["latest"], "Description": ""}:
            return function["published"]
        number = str(self.numbers.get(name, 0) + 1)
        self.numbers[name] = int(number)
        function["published"] = number
        function["versions"][number] = copy.deepcopy(function["latest"])
        if description is not None:
            function["versions"][number]["Description"] = description
        return number

    @rule(name=NAMES)
    def delete(self, name):
        found = self.call("DELETE", f"{FUNCTIONS}/{name}")
        if self.is_there(name, found, 204):
            del self.functions[name]

    @rule(name=NAMES, version=VERSIONS)
    def delete_version(self, name, version):
        found = self.call("DELETE", f"{FUNCTIONS}/{name}?Qualifier={version}")
        function = self.functions.get(name)
        used = [alias["versions"] for alias in function["aliases"].values()] if function else []
        if any(version in versions for versions in used):
            self.expect(found, 409)
        elif self.is_there(name, found, 204):
            function["versions"].pop(version, None)
            function["configs"].pop(version, None)
            if function["published"] == version:
                function["published"] = max(function["versions"], key=int, default="")

    def is_there(self, name, found, status):
        self.expect(found, status if name in self.functions else 404)
        return name in self.functions

    # --- aliases --------------------------------------------------------------------------------------------------

    @rule(name=NAMES, alias=ALIASES, version=VERSIONS, weight=WEIGHTS)
    def create_alias(self, name, alias, version, weight):
        body = {"Name": alias, "FunctionVersion": version, **routing(weight)}
        found = self.call("POST", f"{FUNCTIONS}/{name}/aliases", body)
        function = self.functions.get(name)
        if function is None:
            self.expect(found, 404)
        elif alias in function["aliases"]:
            self.expect(found, 409)
        elif self.may_point(found, function, version, weight, 201):
            function["aliases"][alias] = pointing(version, weight)

    @rule(name=NAMES, alias=ALIASES, version=VERSIONS, weight=WEIGHTS)
    def update_alias(self, name, alias, version, weight):
        found = self.call("PUT", f"{FUNCTIONS}/{name}/aliases/{alias}", {"FunctionVersion": version, **routing(weight)})
        function = self.functions.get(name)
        if function is None or alias not in function["aliases"]:
            self.expect(found, 404)
            return
        kept = function["aliases"][alias]["weights"]
        if weight is None and kept:  # it stays, and has to go with the new version
            weight = next(iter(kept.items()))
        if self.may_point(found, function, version, weight, 200):
            function["aliases"][alias] = pointing(version, weight)

    def may_point(self, found, function, version, weight, status):
        named = [version, *([weight[0]] if weight else [])]
        if len(set(named)) < len(named):
            self.expect(found, 400)
        elif not set(named) <= function["versions"].keys():
            self.expect(found, 404)
        else:
            self.expect(found, status)
            return True
        return False

    @rule(name=NAMES, alias=ALIASES)
    def delete_alias(self, name, alias):
        if self.is_there(name, self.call("DELETE", f"{FUNCTIONS}/{name}/aliases/{alias}"), 204):
            self.functions[name]["aliases"].pop(alias, None)
            self.functions[name]["configs"].pop(alias, None)

    # --- what all versions share ----------------------------------------------------------------------------------

    @rule(name=NAMES, tags=st.dictionaries(st.sampled_from("ab"), st.sampled_from("12"), min_size=1))
    def tag(self, name, tags):
        if self.is_there(name, self.call("POST", f"/2017-03-31/tags/{self.arn(name)}", {"Tags": tags}), 204):
            self.functions[name]["tags"].update(tags)

    @rule(name=NAMES, key=st.sampled_from("ab"))
    def untag(self, name, key):
        if self.is_there(name, self.call("DELETE", f"/2017-03-31/tags/{self.arn(name)}?tagKeys={key}"), 204):
            self.functions[name]["tags"].pop(key, None)

    def arn(self, name):
        return self.api.made.home.arn(name)

    @rule(name=NAMES, count=st.sampled_from([0, 1, 450, 900, 901]))
    def reserve(self, name, count):
        path = f"/2017-10-31/functions/{name}/concurrency"
        found = self.call("PUT", path, {"ReservedConcurrentExecutions": count})
        others = sum(each["reserved"] or 0 for other, each in self.functions.items() if other != name)
        if name in self.functions and count and ACCOUNT_CONCURRENCY - others - count < UNRESERVED_MIN:
            self.expect(found, 400)
        elif self.is_there(name, found, 200):
            self.functions[name]["reserved"] = count

    @rule(name=NAMES)
    def unreserve(self, name):
        if self.is_there(name, self.call("DELETE", f"/2017-10-31/functions/{name}/concurrency"), 204):
            self.functions[name]["reserved"] = None

    @rule(name=NAMES, qualifier=QUALIFIERS, config=CONFIGS, merges=st.booleans())
    def configure_events(self, name, qualifier, config, merges):
        found = self.call("POST" if merges else "PUT", events(name, qualifier), config)
        configs = self.configs(name, qualifier)
        if not config:
            self.expect(found, 400)
        elif configs is None or (merges and (qualifier or LATEST) not in configs):
            self.expect(found, 404)
        else:
            self.expect(found, 200)
            before = configs.get(qualifier or LATEST, {}) if merges else {}
            configs[qualifier or LATEST] = {**before, **config}

    @rule(name=NAMES, qualifier=QUALIFIERS)
    def forget_events(self, name, qualifier):
        found = self.call("DELETE", events(name, qualifier))
        configs = self.configs(name, qualifier)
        if configs is None or (qualifier or LATEST) not in configs:
            self.expect(found, 404)
        else:
            self.expect(found, 204)
            del configs[qualifier or LATEST]

    def configs(self, name, qualifier):
        function = self.functions.get(name)
        if function is None or qualifier not in ("", *function["versions"], *function["aliases"]):
            return None
        return function["configs"]

    # --- kills ----------------------------------------------------------------------------------------------------

    @rule()
    def kill(self):
        before = {name: self.shown(name) for name in self.functions}
        self.boots += 1
        folder = self.root / str(self.boots)
        shutil.copytree(self.folder, folder)  # as it lies there now: nothing was closed
        self.close()
        self.folder = folder
        self.open()
        assert {name: self.shown(name) for name in self.functions} == before

    @precondition(lambda self: self.functions)
    @rule(more=SETTINGS, data=st.data())
    def kill_in_the_middle_of_an_update(self, more, data):
        name = data.draw(st.sampled_from(sorted(self.functions)))
        release = self.api.hold()
        shown = self.expect(self.call("PUT", f"{FUNCTIONS}/{name}/configuration", more, settles=False), 200)
        assert shown["LastUpdateStatus"] == "InProgress"
        self.configured(name, more)
        self.boots += 1
        folder = self.root / str(self.boots)
        shutil.copytree(self.folder, folder)
        self.runner.run(release())
        self.close()
        self.folder = folder
        self.open()

    def shown(self, name):
        """Return all that is shown of a function, revisions too, but for the link to its code: it names a second."""
        path = f"{FUNCTIONS}/{name}"
        shown = [
            self.expect(self.call("GET", each), 200)
            for each in (
                path,
                f"{path}/versions",
                f"{path}/aliases",
                f"/2019-09-25/functions/{name}/event-invoke-config/list",
            )
        ]
        del shown[0]["Code"]["Location"]
        return shown

    # --- what is there --------------------------------------------------------------------------------------------

    @invariant()
    def shows_what_the_model_holds(self):
        listed = self.expect(self.call("GET", FUNCTIONS), 200)["Functions"]
        assert [each["FunctionName"] for each in listed] == sorted([*self.functions, "hello"])
        for name, function in self.functions.items():
            whole, versions, aliases, configs = self.shown(name)
            assert whole.get("Tags", {}) == function["tags"]
            assert whole.get("Concurrency", {}).get("ReservedConcurrentExecutions") == function["reserved"]
            assert {each["State"] for each in versions["Versions"]} == {"Active"}
            assert {each["Version"]: compared(each) for each in versions["Versions"]} == {
                LATEST: function["latest"], **function["versions"],
            }  # fmt: skip
            assert {each["Name"]: compared_alias(each) for each in aliases["Aliases"]} == function["aliases"]
            assert {
                each["FunctionArn"].rpartition(":")[2]: compared_config(each)
                for each in configs["FunctionEventInvokeConfigs"]
            } == function["configs"]

    @invariant()
    def runs_what_the_model_holds(self):
        for name, function in self.functions.items():
            running = self.api.catalog.get(name)
            assert running.reserved_concurrency == function["reserved"]
            for qualifier, wanted in {"": function["latest"], **function["versions"]}.items():
                found = running.version(qualifier)
                assert (found.timeout_s, dict(found.environment)) == (wanted["Timeout"], wanted["Environment"])
                assert (Path(found.code) / "app.py").read_bytes() == next(
                    text.encode() for text in CODES if sha(text) == wanted["CodeSha256"]
                )
            for alias, wanted in function["aliases"].items():
                for chance in (0.1, 0.9):
                    extra = [version for version, weight in wanted["weights"].items() if chance < weight]
                    version = extra[0] if extra else wanted["versions"][0]
                    assert running.version(alias, chance=chance).version == version


def routing(weight):
    return {} if weight is None else {"RoutingConfig": {"AdditionalVersionWeights": {weight[0]: weight[1]}}}


def pointing(version, weight):
    weights = {} if weight is None else {weight[0]: weight[1]}
    return {"versions": [version, *weights], "weights": weights}


def events(name, qualifier):
    path = f"/2019-09-25/functions/{name}/event-invoke-config"
    return f"{path}?Qualifier={qualifier}" if qualifier else path


def compared(shown):
    return {
        "CodeSha256": shown["CodeSha256"],
        "Timeout": shown["Timeout"],
        "Description": shown["Description"],
        "Environment": shown.get("Environment", {}).get("Variables", {}),
    }


def compared_alias(shown):
    weights = shown.get("RoutingConfig", {}).get("AdditionalVersionWeights", {})
    return {"versions": [shown["FunctionVersion"], *weights], "weights": weights}


def compared_config(shown):
    return {key: value for key, value in shown.items() if key.startswith("Maximum")}


@pytest.mark.slow
def test_any_order_of_changes_and_kills_is_what_a_dict_would_be():
    run_state_machine_as_test(
        Functions,
        settings=settings(
            max_examples=LIVES, stateful_step_count=STEPS, suppress_health_check=list(HealthCheck), deadline=None
        ),
    )
