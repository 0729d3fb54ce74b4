"""Lambda's own API over declared functions: who may call, what each operation answers, and AWS's words for what is wrong."""

import base64
import json
import re
import time
import uuid

import botocore.session
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from bridge.api.app import AccessRules
from bridge.api.awslambda.errors import Refused
from bridge.api.awslambda.invocations import event_frame
from bridge.api.awslambda.names import read_name
from bridge.core.invocation import Condition
from bridge.core.mapping import EventSourceMapping, MappingState
from bridge.core.sources import MappingStatus
from bridge.registry.access import AccessKey, Caller
from tests.unit.api.harness import NOW, World

HOST = "127.0.0.1:8581"
ACCOUNT, REGION = "000000000000", "us-east-1"
INVOKE = "/2015-03-31/functions/hello/invocations"
ARN = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:hello"
CALLER = Caller(account=ACCOUNT, region=REGION)
KEYS = {
    key.id: key
    for key in (
        AccessKey(id="ADMIN", secret="s3cret", account=ACCOUNT),
        AccessKey(id="CALLER", secret="other", account=ACCOUNT, allow=("lambda:Invoke*", "lambda:get?unction")),
        AccessKey(id="FOREIGN", secret="third", account="111122223333"),
    )
}


@pytest.fixture
async def open_world():
    """Nobody is asked who they are."""
    made = World(rules=AccessRules(asks=False))
    made.catalog.add("other")
    yield made
    await made.close()


@pytest.fixture
async def keyed():
    made = World(rules=AccessRules(keys=KEYS))
    yield made
    await made.close()


async def ask(world, method, target, body=b"", *, key=None, secret=None, region=REGION, at=None, **headers):
    """Make one call, signed where a key is given."""
    named = {f"x-amz-{name.replace('_', '-')}": value for name, value in headers.items()}
    if key is not None:
        path, _, query = target.partition("?")
        request = AWSRequest(method, f"http://{HOST}{target}", data=body, headers={"host": HOST} | named)
        if at is not None:
            named["x-amz-date"] = at
        SigV4Auth(Credentials(key, secret or KEYS[key].secret), "lambda", region).add_auth(request)
        named = {name.lower(): value for name, value in request.headers.items() if name.lower() != "host"}
    return await world.ask(method, target, body=body, headers=named, token=None, host=HOST)


def refused(answer, status, code):
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (status, code), answer.body
    assert uuid.UUID(answer.headers["x-amzn-requestid"])
    found = answer.json()
    return found.get("message") or found["Message"]


# --- who may call -----------------------------------------------------------------------------------------------


async def test_without_a_signature_nobody_calls(world):
    assert refused(await ask(world, "POST", INVOKE), 403, "MissingAuthenticationTokenException")
    assert world.runtime.invocations == []


async def test_the_admin_token_is_no_principal_and_a_key_no_admin(keyed):
    with_token = await keyed.ask("POST", INVOKE)
    assert refused(with_token, 400, "IncompleteSignatureException")

    request = AWSRequest("GET", f"http://{HOST}/admin/v1/status", headers={"host": HOST})
    SigV4Auth(Credentials("ADMIN", "s3cret"), "lambda", REGION).add_auth(request)
    signed = {name.lower(): value for name, value in request.headers.items() if name.lower() != "host"}
    assert (await keyed.ask("GET", "/admin/v1/status", headers=signed, token=None)).status == 401


async def test_a_path_that_ends_with_a_slash_is_signed_with_it(keyed):
    for path in ("/2015-03-31/functions/", "/2015-03-31/functions"):
        assert (await ask(keyed, "GET", path, key="ADMIN")).status == 200


async def test_a_key_does_what_it_allows(keyed):
    assert (await ask(keyed, "POST", INVOKE, b"{}", key="ADMIN")).status == 200
    assert (await ask(keyed, "POST", INVOKE, b"{}", key="CALLER")).status == 200
    assert (await ask(keyed, "GET", "/2015-03-31/functions/hello", key="CALLER")).status == 200

    text = refused(await ask(keyed, "GET", "/2015-03-31/functions", key="CALLER"), 403, "AccessDeniedException")
    assert text.startswith(
        f"User: arn:aws:iam::{ACCOUNT}:user/CALLER is not authorized to perform: lambda:ListFunctions"
    )
    assert "on resource: * " in text


@pytest.mark.parametrize(
    ("key", "secret", "status", "code"),
    [
        ("ADMIN", "wrong", 403, "InvalidSignatureException"),
        ("NOBODY", "s3cret", 403, "UnrecognizedClientException"),
    ],
)
async def test_a_wrong_signature_runs_nothing(keyed, key, secret, status, code):
    assert refused(await ask(keyed, "POST", INVOKE, b"{}", key=key, secret=secret), status, code)
    assert keyed.runtime.invocations == []


async def test_a_signature_is_good_for_five_minutes(keyed, monkeypatch):
    later = time.time() + 400
    monkeypatch.setattr(keyed.clock, "stepped", lambda: later)
    text = refused(await ask(keyed, "POST", INVOKE, b"{}", key="ADMIN"), 403, "InvalidSignatureException")
    assert text.startswith("Signature expired: ")


async def test_each_account_and_region_is_a_name_space_of_its_own(keyed):
    assert (await ask(keyed, "GET", "/2015-03-31/functions", key="FOREIGN")).json() == {"Functions": []}
    text = refused(await ask(keyed, "POST", INVOKE, key="FOREIGN"), 404, "ResourceNotFoundException")
    assert text == f"Function not found: arn:aws:lambda:{REGION}:111122223333:function:hello:$LATEST"
    elsewhere = await ask(keyed, "POST", INVOKE, key="ADMIN", region="eu-west-1")
    assert "eu-west-1" in refused(elsewhere, 404, "ResourceNotFoundException")


async def test_where_nobody_is_asked_a_key_of_twelve_digits_is_the_account(open_world):
    key = "111122223333"
    answer = await ask(open_world, "GET", "/2015-03-31/functions", key=key, secret="whatever")
    assert answer.json() == {"Functions": []}
    answer = await ask(open_world, "GET", "/2015-03-31/functions", key="test", secret="test")
    assert [each["FunctionName"] for each in answer.json()["Functions"]] == ["hello", "other"]


async def test_a_web_page_reaches_it_no_more_than_the_rest(open_world):
    answer = await open_world.ask("POST", INVOKE, headers={"origin": "http://evil.example"}, token=None)
    assert answer.status == 403
    assert (await open_world.ask("POST", INVOKE, host="evil.example", token=None)).status == 403


async def test_rules_are_taken_anew(keyed):
    keyed.app.set_rules(AccessRules(keys=KEYS, asks=False))
    assert (await ask(keyed, "POST", INVOKE, b"{}")).status == 200


# --- how a function is named ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hello", "hello:$LATEST", f"{ACCOUNT}:function:hello", ARN, f"{ARN}:$LATEST"])
@pytest.mark.parametrize("quoted", [False, True])
async def test_names_and_arns(open_world, name, quoted):
    written = name.replace(":", "%3A") if quoted else name
    answer = await ask(open_world, "POST", f"/2015-03-31/functions/{written}/invocations/", b"{}")
    assert answer.status == 200, answer.body


@pytest.mark.parametrize(
    ("target", "status", "code", "text"),
    [
        ("nobody/invocations", 404, "ResourceNotFoundException", "Function not found: arn:aws:lambda:us-east-1:000000000000:function:nobody:$LATEST"),
        ("hello/invocations?Qualifier=7", 404, "ResourceNotFoundException", f"Function not found: {ARN}:7"),
        ("hello:1/invocations?Qualifier=2", 400, "InvalidParameterValueException", "The derived qualifier from the function name does not match the specified qualifier."),
        ("arn:aws:lambda:eu-west-1:000000000000:function:hello/invocations", 404, "ResourceNotFoundException", "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')"),
        ("arn:aws:lambda:us-east-1:111122223333:function:hello/invocations", 403, "AccessDeniedException", "is not authorized to perform"),
        ("he%20llo/invocations", 400, "ValidationException", "Member must satisfy regular expression pattern"),
        (f"{'x' * 141}/invocations", 400, "ValidationException", "Member must have length less than or equal to 140"),
        ("hello/invocations?Qualifier=%2E%2E", 400, "ValidationException", "at 'qualifier'"),
    ],
)  # fmt: skip
async def test_names_that_are_none(open_world, target, status, code, text):
    assert text in refused(await ask(open_world, "POST", f"/2015-03-31/functions/{target}", b"{}"), status, code)
    assert open_world.runtime.invocations == []


@given(st.text())
def test_no_name_brings_it_down(value):
    try:
        read = read_name(value, CALLER)
    except Refused:
        return
    assert read.name in value


# --- invocations ------------------------------------------------------------------------------------------------


async def test_the_three_types(open_world):
    open_world.runtime.handlers["hello"] = lambda invocation: json.loads(invocation.payload)
    answer = await ask(open_world, "POST", INVOKE, b'{"n":1}', invocation_type="RequestResponse", log_type="Tail")
    assert (answer.status, answer.body, answer.headers["x-amz-executed-version"]) == (200, b'{"n":1}', "$LATEST")
    assert "x-amz-log-result" in answer.headers

    stored = await ask(open_world, "POST", INVOKE, b'{"n":2}', invocation_type="Event")
    assert (stored.status, stored.body) == (202, b"")
    assert open_world.journal.find(stored.headers["x-amzn-requestid"]).payload == b'{"n":2}'
    assert (await ask(open_world, "POST", INVOKE, invocation_type="DryRun")).status == 204


async def test_invoke_async_is_an_event_of_256_kb(open_world):
    path = "/2014-11-13/functions/hello/invoke-async"
    answer = await ask(open_world, "POST", path, b"{}", invocation_type="RequestResponse")
    assert (answer.status, answer.json()) == (202, {"Status": 202})
    assert open_world.runtime.invocations == []
    text = refused(
        await ask(open_world, "POST", path, b'"' + b"x" * 262_144 + b'"'), 413, "RequestEntityTooLargeException"
    )
    assert "limit 262144 bytes" in text


def frames(body: bytes):
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    return [(event.headers[":event-type"], event.payload) for event in buffer]


async def test_a_streamed_answer_is_one_chunk_and_its_end(open_world):
    path = "/2021-11-15/functions/hello/response-streaming-invocations"
    open_world.runtime.handlers["hello"] = lambda _: "x" * 1000
    answer = await ask(open_world, "POST", path, b"{}", log_type="Tail")
    assert answer.headers["content-type"] == "application/vnd.amazon.eventstream"
    (chunk, payload), (end, complete) = frames(answer.body)
    assert (chunk, payload) == ("PayloadChunk", b'"' + b"x" * 1000 + b'"')
    assert end == "InvokeComplete"
    assert base64.b64decode(json.loads(complete)["LogResult"]) == b""

    def fail(_invocation):
        raise ValueError("no")

    open_world.runtime.handlers["hello"] = fail
    ((end, complete),) = frames((await ask(open_world, "POST", path, b"{}")).body)
    assert end == "InvokeComplete"
    assert json.loads(complete)["ErrorCode"] == "ValueError"
    assert json.loads(json.loads(complete)["ErrorDetails"])["errorMessage"] == "no"
    assert refused(await ask(open_world, "POST", path, invocation_type="Event"), 400, "ValidationException")


@given(st.binary())
def test_botocore_reads_every_frame(payload):
    ((kind, read),) = frames(event_frame("PayloadChunk", payload, content_type="application/octet-stream"))
    assert (kind, read) == ("PayloadChunk", payload)


# --- what is looked at ------------------------------------------------------------------------------------------


async def test_functions_come_in_pages(open_world):
    for number in range(5):
        open_world.catalog.add(f"more-{number}")
    seen, marker = [], ""
    while True:
        page = (await ask(open_world, "GET", f"/2015-03-31/functions/?MaxItems=3{marker}")).json()
        seen += [each["FunctionName"] for each in page["Functions"]]
        if "NextMarker" not in page:
            break
        marker = f"&Marker={page['NextMarker']}"
    assert seen == ["hello", "more-0", "more-1", "more-2", "more-3", "more-4", "other"]

    for query, code in (("MaxItems=0", "ValidationException"), ("MaxItems=x", "SerializationException"),
                        ("MaxItems=10001", "ValidationException"), ("FunctionVersion=1", "ValidationException"),
                        ("Marker=%21", "InvalidParameterValueException")):  # fmt: skip
        assert refused(await ask(open_world, "GET", f"/2015-03-31/functions?{query}"), 400, code), query


async def test_a_function_and_its_configuration(open_world):
    found = (await ask(open_world, "GET", "/2015-03-31/functions/hello")).json()
    configuration = (await ask(open_world, "GET", "/2015-03-31/functions/hello/configuration")).json()
    assert found["Configuration"] == configuration
    assert configuration["FunctionArn"] == ARN
    assert (configuration["State"], configuration["Version"]) == ("Active", "$LATEST")
    qualified = await ask(open_world, "GET", "/2015-03-31/functions/hello?Qualifier=$LATEST")
    assert qualified.json()["Configuration"]["FunctionArn"] == f"{ARN}:$LATEST"


async def test_what_a_declared_function_does_not_have(open_world):
    assert (await ask(open_world, "GET", "/2015-03-31/functions/hello/aliases")).json() == {"Aliases": []}
    assert (await ask(open_world, "GET", f"/2017-03-31/tags/{ARN}")).json() == {"Tags": {}}
    assert (await ask(open_world, "GET", "/2019-09-30/functions/hello/concurrency")).json() == {}
    policy = await ask(open_world, "GET", "/2015-03-31/functions/hello/policy")
    assert refused(policy, 404, "ResourceNotFoundException") == "The resource you requested does not exist."
    (version,) = (await ask(open_world, "GET", "/2015-03-31/functions/hello/versions")).json()["Versions"]
    assert version["FunctionArn"] == f"{ARN}:$LATEST"


async def test_mappings_by_function_and_source(open_world):
    for name, function, source in (("a", "hello", "kafka://main/a"), ("b", "other", "kinesis://aws/b")):
        mapping = EventSourceMapping(name=name, source=source, function=function)
        open_world.mappings.add(
            MappingStatus(mapping=mapping, state=MappingState.ENABLED, reason="", result="OK", modified_at=NOW)
        )
    listed = (await ask(open_world, "GET", "/2015-03-31/event-source-mappings?FunctionName=hello")).json()
    (one,) = listed["EventSourceMappings"]
    assert (one["FunctionArn"], one["Topics"], one["State"]) == (ARN, ["a"], "Enabled")
    by_source = await ask(open_world, "GET", "/2015-03-31/event-source-mappings?EventSourceArn=kinesis://aws/b")
    (other,) = by_source.json()["EventSourceMappings"]
    assert (await ask(open_world, "GET", f"/2015-03-31/event-source-mappings/{other['UUID']}")).json() == other
    missing = await ask(open_world, "GET", f"/2015-03-31/event-source-mappings/{uuid.uuid4()}")
    assert refused(missing, 404, "ResourceNotFoundException")


async def test_what_is_not_offered_says_so(open_world):
    text = refused(await ask(open_world, "POST", "/2015-03-31/functions", b"{}"), 400, "InvalidParameterValueException")
    assert text.startswith("CreateFunction is not offered: ")
    unknown = await ask(open_world, "GET", "/2015-03-31/durable-executions/x")
    assert refused(unknown, 404, "UnknownOperationException")


async def test_every_operation_of_the_model_is_known(open_world):
    model = botocore.session.get_session().get_service_model("lambda")
    unknown = []
    for name in model.operation_names:
        called = model.operation_model(name).http
        path = re.sub(r"\{\w+\}", "hello", called["requestUri"])
        answer = await ask(open_world, called["method"], path, b"{}")
        if answer.headers.get("x-amzn-errortype") == "UnknownOperationException":
            unknown.append(name)

    assert unknown == []


async def test_a_loop_of_functions_is_stopped_unless_it_is_allowed(open_world):
    config = "/2024-08-31/functions/hello/recursion-config"
    assert (await ask(open_world, "GET", config)).json() == {"RecursiveLoop": "Terminate"}
    recursion = open_world.services.attached.recursion

    async def rounds(count, **headers):
        header, answer = "", None
        for number in range(count):
            answer = await open_world.ask(
                "POST", INVOKE, body=b"{}", token=None, host=HOST, headers={"x-amzn-trace-id": header} | headers
            )
            header = recursion.trace(answer.headers["x-amzn-requestid"], "hello", now=NOW + number)
        return answer

    assert (await rounds(16)).status == 200
    stopped = await rounds(17)
    assert "was invoked 16 times" in refused(stopped, 400, "RecursiveInvocationException")
    assert "Message" in stopped.json()
    accepted = await rounds(17, **{"x-amz-invocation-type": "Event"})
    assert accepted.status == 202, "AWS takes it, and its failure destination gets it"
    (record, condition, text), request_id = open_world.refused[0], accepted.headers["x-amzn-requestid"]
    assert (record.id, record.function, condition) == (request_id, "hello", Condition.RECURSIVE_LOOP)
    assert "was invoked 16 times" in text
    assert len(open_world.refused) == 1
    # What its failure is sent with goes on with the chain.
    assert recursion.why_stopped("hello", recursion.trace(request_id, "hello", now=NOW))
    changed = await ask(open_world, "PUT", config, b'{"RecursiveLoop": "Allow"}')
    assert (changed.status, changed.json()) == (200, {"RecursiveLoop": "Allow"})
    assert (await rounds(20)).status == 200

    text = refused(await ask(open_world, "PUT", config, b"{}"), 400, "ValidationException")
    assert "'recursiveLoop'" in text
    refused(await ask(open_world, "PUT", config, b'{"RecursiveLoop": "Maybe"}'), 400, "ValidationException")
    missing = config.replace("hello", "nobody")
    refused(await ask(open_world, "GET", missing), 404, "ResourceNotFoundException")
    refused(await ask(open_world, "GET", config.replace("hello", "hello:live")), 400, "InvalidParameterValueException")
