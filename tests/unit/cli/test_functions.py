"""`bridge functions`: tables, deploys, versions and aliases, over Lambda's API with functions kept in memory."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.shell_completion import ShellComplete
from structlog.testing import capture_logs

from bridge.api.app import AccessRules
from bridge.cli import arguments, packing
from bridge.cli.main import cli
from bridge.core.function import Interpreter
from tests.unit.api.making import FUNCTIONS, request
from tests.unit.api.test_made_functions import Made, MemoryFunctions
from tests.unit.cli.conftest import ServedMade, invoke, serving
from tests.zips import zipped

INTERPRETER = f"python{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture
def served(tmp_path):
    """Return a world whose functions can be made; Lambda's own paths ask for a signature there."""
    with serving(lambda folder: ServedMade(folder, rules=AccessRules()), tmp_path) as made:
        yield made


@pytest.fixture
def functions(served):
    """Return `functions(verb, …)`: runs `bridge functions verb …` against the served daemon."""
    return lambda *args, **options: invoke("--state", str(served.state), "functions", *args, **options)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "code"
    (made / "lib" / "__pycache__").mkdir(parents=True)
    (made / "app.py").write_text("def handler(event, context): return 'one'\n")
    (made / "lib" / "tool.sh").write_text("#!/bin/sh\n")
    (made / "lib" / "tool.sh").chmod(0o700)
    (made / "lib" / "__pycache__" / "app.pyc").write_text("no")
    return made


def deployed(functions, folder, *more, name="made") -> SimpleNamespace:
    found = functions("deploy", name, str(folder), "--handler", "app.handler", "--json", *more)
    assert found.code == 0, found.err
    return json.loads(found.out)


def test_a_deploy_makes_then_changes_only_what_differs(functions, folder, served):
    made = deployed(functions, folder, "--memory", "256", "--env", "STAGE=prod")

    assert made["Result"] == "created"
    shown = made["Configuration"]
    assert (shown["State"], shown["Runtime"], shown["MemorySize"]) == ("Active", INTERPRETER, 256)
    assert shown["Environment"] == {"Variables": {"STAGE": "prod"}}
    code = Path(served.made.catalog.get("made").latest.code)
    assert sorted(path.name for path in code.rglob("*") if path.is_file()) == ["app.py", "tool.sh"]
    assert (code / "lib" / "tool.sh").stat().st_mode & 0o111
    (folder / "app.py").touch()
    assert deployed(functions, folder)["Result"] == "unchanged"
    changed = deployed(functions, folder, "--timeout", "7")
    assert (changed["Result"], changed["Configuration"]["MemorySize"]) == ("updated", 256)
    (folder / "app.py").write_text("def handler(event, context): return 'two'\n")
    after = deployed(functions, folder)
    assert (after["Result"], after["Configuration"]["Timeout"]) == ("updated", 7)
    assert after["Configuration"]["CodeSha256"] != shown["CodeSha256"]
    assert after["Configuration"]["LastUpdateStatus"] == "Successful"


def test_a_deploy_publishes_and_moves_an_alias(functions, folder, served):
    made = deployed(functions, folder, "--alias", "live")
    assert (made["Version"], made["Alias"]["FunctionVersion"]) == ("1", "1")
    (folder / "app.py").write_text("def handler(event, context): return 'two'\n")
    found = functions("deploy", "made", str(folder), "--alias", "live", "--timeout", "9")

    lines = [line.split() for line in found.out.splitlines()]
    assert lines[0][:2] == ["updated", "made"]
    assert lines[1:] == [["version", "2"], ["alias", "live", "->", "2"]]
    assert found.err == "invoke it: bridge invoke made:live\n"
    version = served.made.catalog.get("made").version("live")
    assert (version.version, version.timeout_s) == ("2", 9)  # what was published has both changes


def test_the_zip_of_a_folder_depends_on_its_files_alone(folder, tmp_path):
    with packing.packed(folder) as first:
        sha = first.sha256
    (folder / "app.py").touch()
    (folder / "lib" / "tool.sh").chmod(0o755)
    with packing.packed(folder) as again:
        assert again.sha256 == sha
        size, pieces = packing.request({"FunctionName": "x"}, again, within="Code")
        body = b"".join(pieces)
    assert len(body) == size
    assert list(json.loads(body)) == ["FunctionName", "Code"]
    path = tmp_path / "made.zip"
    path.write_bytes(zipped({"app.py": ""}))
    with packing.packed(path) as given:
        assert (given.size, given.modules) == (path.stat().st_size, ("app",))


def test_a_variable_without_a_value_takes_it_from_here(functions, folder):
    found = functions(
        "deploy", "made", str(folder), "--handler", "app.handler", "--env", "SECRET", "--json", env={"SECRET": "x=y"}
    )
    assert json.loads(found.out)["Configuration"]["Environment"] == {"Variables": {"SECRET": "x=y"}}
    missing = functions("deploy", "made", str(folder), "--env", "NOBODY_SET_IT")
    assert missing.code == 2
    assert "write NAME=VALUE, or NAME of a variable set here" in missing.err


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("deploy", "made", "code"), 2, "made is new, and a new function needs a handler; modules at its top: app\n  say which function of which module is called: --handler app.handler"),
        (("deploy", "hello", "code"), 2, "hello is declared in the daemon's file, which alone changes it\n  edit its code or its section and run `bridge reload`"),
        (("deploy", "made:1", "code"), 2, "a deploy changes $LATEST"),
        (("deploy", "made", "code/app.py"), 2, "code/app.py is neither a folder nor a zip; give the folder"),
        (("deploy", "made", "empty"), 2, "empty holds no files"),
        (("deploy", "made", "code", "--handler", "app.handler", "--timeout", "901"), 2, "Value '901' at 'timeout' failed"),
        (("show", "helo"), 1, "no function helo; did you mean hello?\n  all there are: bridge functions list"),
        (("show", "other"), 1, "no function other\n  make it with: bridge functions deploy other FOLDER --handler"),
        (("show", "hello:9"), 1, "Function not found: arn:aws:lambda:us-east-1:000000000000:function:hello:9\n  versions and aliases that there are: bridge functions show hello"),
        (("publish", "helo"), 1, "no function helo; did you mean hello?"),
        (("alias", "hello", "live"), 1, "Cannot find alias arn"),
        (("policy", "helo"), 1, "no function helo; did you mean hello?"),
        (("policy", "hello:9"), 1, "function:hello:9\n  versions and aliases that there are"),
        (("policy", "hello", "--remove", "x"), 1, "No policy is associated"),
        (("policy", "hello", "--add", "x"), 2, "say who may: --principal"),
        (("policy", "hello", "--add", "x", "--principal", "who"), 2, "an account of 12 digits"),
        (("policy", "hello", "--action", "x"), 2, "these options belong to --add"),
        (("policy", "hello", "--add", "x", "--remove", "x"), 2, "are two commands"),
        (("alias", "hello", "--delete"), 2, "say which alias"),
        (("alias", "hello", "live", "--weight", "3=1.5"), 2, "write VERSION=SHARE with a share of 0 to 1"),
        (("alias", "hello", "live", "--description", "x"), 1, "hello has no alias live; a new one needs a version"),
        (("alias", "hello", "live", "--delete", "--weight", "1=0.1"), 2, "--delete goes with nothing else"),
    ],
)  # fmt: skip
def test_errors_say_what_to_do_next(functions, folder, tmp_path, arguments, code, text):
    (tmp_path / "empty").mkdir()
    found = functions(*arguments)

    assert (found.code, text in found.err) == (code, True), found.err


def test_too_large_a_package_is_not_sent(functions, folder, monkeypatch):
    monkeypatch.setattr(packing, "ZIPPED_MAX_BYTES", 10)
    found = functions("deploy", "made", str(folder), "--handler", "app.handler")

    assert (found.code, "move what is large into a layer" in found.err) == (2, True)


def test_the_list_tells_the_maker_and_the_runtime(functions, folder):
    assert functions("list").out.splitlines()[1].split() == [
        "hello",
        "file",
        INTERPRETER,
        "app.handler",
        "128",
        "MB",
        "3",
        "s",
    ]
    deployed(functions, folder, "--runtime", "python3.9", "--alias", "live")
    functions("deploy", "java", str(folder), "--handler", "app.handler", "--runtime", "java21")
    lines = functions("list").out.splitlines()

    assert lines[0].split() == [
        "NAME",
        "FROM",
        "RUNTIME",
        "HANDLER",
        "MEMORY",
        "TIMEOUT",
        "VERSIONS",
        "ALIASES",
        "TROUBLE",
    ]
    assert f"made   api   python3.9, run by {INTERPRETER}" in lines[3]
    assert lines[3].split()[-2:] == ["1", "live=1"]
    assert "java21 has no interpreter here" in lines[2]
    names = [json.loads(line)["name"] for line in functions("list", "--json").out.splitlines()]
    assert names == ["hello", "java", "made"]


def test_a_substitute_for_a_runtime_is_in_the_log_and_shown(functions, folder, served):
    other = Interpreter(program="/usr/bin/python3.11", version="3.11", prefix="/usr")
    made = served.made.made
    made._builder = replace(made._builder, runtimes={"python3.9": other, "python3.11": other})
    with capture_logs() as logged:
        deployed(functions, folder, "--runtime", "python3.9")
        deployed(functions, folder, "--runtime", "python3.11", name="same")

    told = "python3.9, run by python3.11 at /usr/bin/python3.11 ([runtimes])"
    found = {(each["function"], each["runtime"]) for each in logged if each["event"] == "runtime_substituted"}
    assert found == {("made", told)}
    assert told in functions("show", "made").out
    assert served.made.catalog.get("made").latest.interpreter == other


def test_show_has_versions_and_aliases(functions, folder):
    deployed(functions, folder, "--alias", "live", "--env", "STAGE=x", "--description", "does it")
    lines = functions("show", "made").out.splitlines()

    shown = {line.split("  ")[0]: line.split("  ")[-1].strip() for line in lines if "  " in line}
    assert (shown["from"], shown["state"], shown["variables"]) == ("Lambda's API", "Active", "STAGE")
    assert (shown["description"], shown["retries"]) == ("does it", "2")
    assert lines[-2].split() == ["ALIAS", "VERSION", "ALSO", "DESCRIPTION"]
    assert lines[-1].split() == ["live", "1"]
    whole = json.loads(functions("show", "made:live", "--json").out)
    assert whole["Configuration"]["Version"] == "1"
    assert [version["Version"] for version in whole["Versions"]] == ["1"]
    assert whole["Local"]["made_by"] == "Lambda's API"
    declared = functions("show", "hello").out
    assert "the daemon's file" in declared
    assert INTERPRETER in declared


def test_the_level_in_force_for_its_workers_is_shown(tmp_path):
    def level(version):
        return {"hello": "cgroup"}[version.name]

    with serving(lambda folder: ServedMade(folder, rules=AccessRules(), sandbox_level=level), tmp_path) as served:
        shown = invoke("--state", str(served.state), "functions", "show", "hello")
        whole = invoke("--state", str(served.state), "functions", "show", "hello", "--json")

    assert ["sandbox", "cgroup"] in [line.split() for line in shown.out.splitlines()]
    assert json.loads(whole.out)["Local"]["sandbox"] == "cgroup"


def test_aliases_with_weights(functions, folder, served):
    deployed(functions, folder, "--publish")
    (folder / "app.py").write_text("def handler(event, context): return 'two'\n")
    deployed(functions, folder)
    published = functions("publish", "made", "--description", "second")
    assert (published.out, published.err) == ("2\n", "let an alias point to it: bridge functions alias made live 2\n")
    assert functions("publish", "made").out == "2\n"  # nothing has changed
    assert "made has no aliases" in functions("alias", "made").err
    assert functions("alias", "made", "live", "1").code == 0
    lines = functions("alias", "made", "live", "--weight", "2=0.1").out.splitlines()
    assert lines[1].split() == ["live", "1", "2", "(10%)"]
    assert served.made.catalog.get("made").aliases["live"].weight == 0.1
    (listed,) = [json.loads(line) for line in functions("alias", "made", "--json").out.splitlines()]
    assert listed["RoutingConfig"] == {"AdditionalVersionWeights": {"2": 0.1}}
    moved = json.loads(functions("alias", "made", "live", "2", "--json").out)
    assert (moved["FunctionVersion"], "RoutingConfig" in moved) == ("2", False)
    assert functions("alias", "made", "live", "9").err == (
        "bridge: Function not found: arn:aws:lambda:us-east-1:000000000000:function:made:9\n"
        "  versions and aliases that there are: bridge functions show made\n"
    )
    assert functions("alias", "made", "live", "--delete").code == 0
    assert functions("alias", "made", "--json").out == ""


def test_a_policy_is_shown_added_to_and_removed(functions):
    assert "hello has no policy" in functions("policy", "hello").err
    arn = "arn:aws:s3:::photos"
    added = functions("policy", "hello", "--add", "photos", "--principal", "s3.amazonaws.com", "--source-arn", arn)

    assert [line.split() for line in added.out.splitlines()] == [
        ["SID", "PRINCIPAL", "ACTION", "CONDITIONS"],
        ["photos", "s3.amazonaws.com", "lambda:InvokeFunction", f"AWS:SourceArn={arn}"],
    ]
    twice = functions("policy", "hello", "--add", "photos", "--principal", "*")
    assert (twice.code, "remove it first: bridge functions policy hello --remove SID" in twice.err) == (1, True)
    assert json.loads(functions("policy", "hello", "--json").out)["Sid"] == "photos"
    gone = functions("policy", "hello", "--remove", "photos")
    assert (gone.code, gone.out) == (0, "")
    shown = functions("policy", "hello", "--add", "u", "--principal", "*", "--function-url-auth-type", "AWS_IAM").out
    assert shown.splitlines()[1].split() == ["u", "*", "lambda:InvokeFunctionUrl", "lambda:FunctionUrlAuthType=AWS_IAM"]
    shown = functions("policy", "hello", "--add", "v", "--principal", "*", "--invoked-via-function-url").out
    assert shown.splitlines()[2].split() == ["v", "*", "lambda:InvokeFunction", "lambda:InvokedViaFunctionUrl=true"]
    assert functions("policy", "hello", "--invoked-via-function-url").code == 2


def test_a_url_is_made_changed_and_deleted(functions):
    missing = functions("url", "hello")
    assert (missing.code, "bridge functions url hello --auth NONE" in missing.err) == (1, True)
    made = functions("url", "hello", "--auth", "AWS_IAM")
    assert made.out.splitlines()[1].split() == ["auth", "AWS_IAM"]
    changed = functions("url", "hello", "--auth", "none", "--cors", "https://a.example")
    assert changed.out.splitlines()[0] == made.out.splitlines()[0]
    assert [line.split()[1:] for line in functions("policy", "hello").out.splitlines()[1:]] == [
        ["*", "lambda:InvokeFunctionUrl", "lambda:FunctionUrlAuthType=NONE"],
        ["*", "lambda:InvokeFunction", "lambda:InvokedViaFunctionUrl=true"],
    ]
    functions("policy", "hello", "--remove", "FunctionURLInvokeAllowPublicAccess")
    assert "lacks a public statement" in functions("url", "hello").err
    assert functions("url", "hello", "--auth", "NONE").err == ""
    assert len(functions("policy", "hello").out.splitlines()) == 3
    assert json.loads(functions("url", "hello", "--json").out)["Cors"] == {"AllowOrigins": ["https://a.example"]}
    assert functions("url", "hello", "--delete").code == 0
    assert "hello has no policy" in functions("policy", "hello").err
    assert functions("url", "hello").code == 1
    assert "did you mean hello?" in functions("url", "helo").err
    assert functions("url", "hello", "--delete", "--auth", "NONE").code == 2


def test_a_handler_that_is_not_in_the_package_is_told(functions, folder):
    made = functions("deploy", "made", str(folder), "--handler", "nothere.handler")
    assert (
        "warning: the handler nothere.handler is in no nothere.py of this package; modules at its top: app" in made.err
    )
    assert "warning" not in functions("deploy", "made", str(folder), "--handler", "app.handler").err


def test_a_long_upload_has_a_bar(functions, folder, monkeypatch):
    from bridge.cli import deploy

    shown = []
    monkeypatch.setattr(deploy, "BAR_MIN_BYTES", 1)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    counted = deploy.counted
    monkeypatch.setattr(
        deploy, "counted", lambda pieces, show: counted(pieces, lambda gone: (shown.append(gone), show(gone)))
    )
    (folder / "data").write_bytes(bytes(range(256)) * 4000)
    made = deployed(functions, folder)

    assert made["Result"] == "created"
    assert shown == sorted(shown)
    assert len(shown) >= 3


def test_words_complete(functions, folder, served, monkeypatch):
    monkeypatch.setattr(arguments, "_COMPLETION_S", 30)
    deployed(functions, folder, "--alias", "live")
    shell = ShellComplete(cli, {}, "bridge", "_BRIDGE_COMPLETE")
    state = ["--state", str(served.state), "functions"]

    def completed(args, typed):
        return [item.value for item in shell.get_completions([*state, *args], typed)]

    assert completed([], "") == ["alias", "deploy", "list", "policy", "publish", "show", "url"]
    assert completed(["show"], "") == ["hello", "made"]
    assert completed(["alias", "made"], "l") == ["live"]
    assert completed(["alias", "made", "live"], "") == ["$LATEST", "1"]
    assert completed(["policy", "made", "--action"], "lambda:InvokeFunctionU") == ["lambda:InvokeFunctionUrl"]
    assert completed(["policy", "made", "--function-url-auth-type"], "") == ["none", "aws_iam"]
    assert completed(["deploy", "made", str(folder), "--runtime"], "python3.1") == [
        "python3.10", "python3.11", "python3.12", "python3.13", "python3.14", "python3.15",
    ]  # fmt: skip
    assert completed(["deploy", "made", str(folder), "--alias"], "") == ["live"]


async def test_the_operator_needs_the_admin_token_and_invokes_elsewhere(tmp_path):
    made = Made(tmp_path, MemoryFunctions())
    await made.made.open()
    ask, path = made.world.ask, "/admin/v1/lambda/2015-03-31/functions"
    made.world.app.set_rules(AccessRules())
    try:
        assert (await ask("GET", path, token=None)).status == 401
        assert (await ask("GET", path)).status == 200
        assert (await ask("GET", "/2015-03-31/functions")).status == 400  # the token is no signature
        assert (await ask("GET", path, headers={"origin": "http://evil.example"})).status == 403
        refused = await ask("POST", f"{path}/hello/invocations")
        assert (refused.status, refused.headers["x-amzn-errortype"]) == (404, "UnknownOperationException")
        assert (await ask("GET", "/admin/v1/lambda/no/such/path")).status == 404
    finally:
        await made.world.close()


def test_functions_of_other_name_spaces_are_listed_where_all_are_and_shown_by_their_name(functions, served):
    name, rules = "made@eu-west-1.222222222222", AccessRules(asks=False)
    signed = "AWS4-HMAC-SHA256 Credential=222222222222/20260101/eu-west-1/lambda/aws4_request, SignedHeaders=host;x-amz-date, Signature=x"

    async def make():
        served.made.world.app.set_rules(rules)
        await served.made.ask("POST", FUNCTIONS, request(), 201, headers={"authorization": signed})
        await served.made.settled(name)

    served.call(make())
    listed = [json.loads(line)["name"] for line in functions("list", "--json").out.splitlines()]
    everywhere = [json.loads(line)["name"] for line in functions("list", "--all", "--json").out.splitlines()]

    assert (name in listed, name in everywhere) == (False, True)
    shown = json.loads(functions("show", name, "--json").out)
    assert shown["Configuration"]["FunctionArn"] == "arn:aws:lambda:eu-west-1:222222222222:function:made"
    assert functions("publish", name).code == 0
    assert functions("alias", name, "live", "1").code == 0
    assert served.made.catalog.get(name).aliases["live"].version == "1"
    assert functions("show", "made").code != 0
