"""`bridge reset`: only where it is allowed, asked for, and only what Lambda's API made."""

import asyncio
import json

import pytest

from bridge.store.functions import SqliteFunctions
from tests.unit.cli.conftest import ServedMade, invoke, serving


class Resettable(ServedMade):
    """A world whose functions can be made and cleared."""

    allowed = True

    def __init__(self, folder):
        super().__init__(folder, may_reset=lambda: self.allowed)


@pytest.fixture
def served(tmp_path):
    with serving(Resettable, tmp_path) as made:
        yield made


@pytest.fixture
def reset(served):
    return lambda *args: invoke("--state", str(served.state), "reset", *args)


def test_it_clears_what_was_made_and_the_numbers(served, reset):
    api = served.made
    served.call(api.create(Publish=True))
    served.call(api.json("POST", "/2015-03-31/functions/made/aliases", {"Name": "live", "FunctionVersion": "1"}, 201))
    served.call(api.json("POST", "/2015-03-31/functions/hello/policy", {
        "StatementId": "s", "Action": "lambda:InvokeFunction", "Principal": "*",
    }, 201))  # fmt: skip
    served.call(api.json("POST", "/2021-10-31/functions/made/url", {"AuthType": "NONE"}, 201))
    loop = "/2024-08-31/functions/hello/recursion-config"
    served.call(api.json("PUT", loop, {"RecursiveLoop": "Allow"}))
    asked = reset()
    told = "1 function, 1 version, 1 alias"
    assert (asked.code, f"Clear {told}" in asked.err, "say --yes" in asked.err) == (2, True, True)
    assert api.made.names() == ("made",)

    assert reset("--yes").out == f"cleared {told}, 1 policy, 1 URL, 1 function setting\n"
    served.call(api.ask("GET", "/2021-10-31/functions/made/url", status=404))
    assert [function.name for function in api.catalog.functions()] == ["hello"]
    served.call(api.ask("GET", "/2015-03-31/functions/hello/policy", status=404))
    assert served.call(api.json("GET", loop)) == {"RecursiveLoop": "Terminate"}
    assert "made" in api.changed
    served.call(api.create(Publish=True))
    assert list(api.made.get("made").versions) == ["1"]
    assert json.loads(reset("--yes", "--json").out)["functions"] == 1
    assert reset().err == "nothing was made by Lambda's API\n"


def test_a_file_that_does_not_allow_it(served, reset):
    served.allowed = False
    served.call(served.made.create())
    found = reset("--yes")

    assert (found.code, "[dev] reset = true" in found.err) == (2, True)
    assert served.made.made.names() == ("made",)


def test_the_database_is_empty_then(tmp_path):
    async def run():
        store = await SqliteFunctions.open(tmp_path / "catalog.db")
        await store.attachments("policy").save(("arn", ""), b"{}")
        await store.erase()
        found = await store.load(), await store.attachments("policy").load()
        await store.close()
        return found

    assert asyncio.run(run()) == (({}, {}), {})
