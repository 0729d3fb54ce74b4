"""Function URL configurations through Lambda's API: AWS's shapes and words, aliases, what goes with a function."""

import pytest

from bridge.registry.urls import FunctionUrls
from tests.unit.api.making import ARN, FUNCTIONS
from tests.unit.api.test_permissions import Api

URL = "/2021-10-31/functions/made/url"
CORS = {"AllowOrigins": ["https://a.example"], "AllowMethods": ["GET"], "MaxAge": 60, "AllowCredentials": True}


@pytest.fixture
async def api(tmp_path):
    async with Api(tmp_path).opened() as made:
        yield made


async def test_made_changed_listed_and_deleted(api):
    made = await api.json("POST", URL, {"AuthType": "NONE", "Cors": CORS}, 201)
    url_id = made["FunctionUrl"].removeprefix("http://").partition(".")[0]
    assert len(url_id) == 32
    assert made == {
        "FunctionUrl": f"http://{url_id}.lambda-url.us-east-1.localhost/", "FunctionArn": ARN, "AuthType": "NONE",
        "CreationTime": made["CreationTime"], "InvokeMode": "BUFFERED", "Cors": CORS,
    }  # fmt: skip
    shown = await api.json("GET", URL)
    assert shown == made | {"LastModifiedTime": made["CreationTime"]}

    changed = await api.json("PUT", URL, {"AuthType": "AWS_IAM", "InvokeMode": "RESPONSE_STREAM"})
    assert (changed["AuthType"], changed["InvokeMode"], changed["Cors"]) == ("AWS_IAM", "RESPONSE_STREAM", CORS)
    assert "Cors" not in await api.json("PUT", URL, {"Cors": {}})

    other = await api.json("POST", f"{URL}?Qualifier=prod", {"AuthType": "AWS_IAM"}, 201)
    assert other["FunctionArn"] == f"{ARN}:prod"
    listed = await api.json("GET", f"{URL}s?MaxItems=1")
    assert [each["FunctionArn"] for each in listed["FunctionUrlConfigs"]] == [ARN]
    listed = await api.json("GET", f"{URL}s?Marker={listed['NextMarker']}")
    assert [each["FunctionArn"] for each in listed["FunctionUrlConfigs"]] == [f"{ARN}:prod"]

    await api.ask("DELETE", URL, status=204)
    text = await api.refused("GET", URL, None, 404, "ResourceNotFoundException")
    assert text == "The resource you requested does not exist."
    await api.refused("DELETE", URL, None, 404, "ResourceNotFoundException")


async def test_the_second_one_is_refused(api):
    await api.json("POST", URL, {"AuthType": "NONE"}, 201)

    text = await api.refused("POST", URL, {"AuthType": "NONE"}, 409, "ResourceConflictException")

    assert text == (
        f"Failed to create function url config for [functionArn = {ARN}]. Error message:  FunctionUrlConfig exists for "
        "this Lambda function"
    )


@pytest.mark.parametrize(
    ("query", "body", "status", "code"),
    [
        ("?Qualifier=1", {"AuthType": "NONE"}, 400, "ValidationException"),
        ("?Qualifier=$LATEST", {"AuthType": "NONE"}, 400, "ValidationException"),
        ("?Qualifier=nope", {"AuthType": "NONE"}, 404, "ResourceNotFoundException"),
        ("", {}, 400, "ValidationException"),
        ("", {"AuthType": "OPEN"}, 400, "ValidationException"),
        ("", {"AuthType": ""}, 400, "ValidationException"),
        ("", {"AuthType": "NONE", "InvokeMode": "FAST"}, 400, "ValidationException"),
        ("", {"AuthType": "NONE", "Cors": {"MaxAge": 86_401}}, 400, "ValidationException"),
        ("", {"AuthType": "NONE", "Cors": {"AllowMethods": ["GET"] * 7}}, 400, "ValidationException"),
        ("", {"AuthType": "NONE", "Cors": {"AllowOrigins": ["a\r\nb"]}}, 400, "ValidationException"),
        ("", {"AuthType": "NONE", "Cors": {"AllowOrigins": [1]}}, 400, "SerializationException"),
    ],
)
async def test_what_is_wrong_is_refused(api, query, body, status, code):
    await api.refused("POST", URL + query, body, status, code)
    assert (await api.json("GET", f"{URL}s"))["FunctionUrlConfigs"] == []


async def test_urls_go_with_their_alias_and_function_and_are_read_back(api):
    for query in ("", "?Qualifier=prod"):
        await api.json("POST", URL + query, {"AuthType": "NONE", "Cors": CORS}, 201)
    again = FunctionUrls(api.url_store)
    await again.open()
    assert [again.get((ARN, each)) for each in ("", "prod")] == [api.urls.get((ARN, each)) for each in ("", "prod")]
    assert all(again.find(url.id) == url for url in api.urls.of_function(ARN))

    await api.ask("DELETE", f"{FUNCTIONS}/made/aliases/prod", status=204)
    assert list(api.url_store.documents) == [(ARN, "")]
    await api.ask("DELETE", f"{FUNCTIONS}/made", status=204)
    assert not api.urls
    assert api.url_store.documents == {}
    await api.create()
    assert (await api.json("GET", f"{URL}s"))["FunctionUrlConfigs"] == []


async def test_a_declared_function_may_have_one(api):
    made = await api.json("POST", "/2021-10-31/functions/hello/url", {"AuthType": "NONE"}, 201)
    assert made["FunctionArn"].endswith(":function:hello")


@pytest.mark.parametrize(
    ("method", "path", "action"),
    [
        ("POST", "/2025-11-30/capacity-providers", "CreateCapacityProvider"),
        ("GET", "/2025-12-01/functions/made/durable-executions", "ListDurableExecutionsByFunction"),
        ("PUT", "/2025-11-30/functions/made/function-scaling-config", "PutFunctionScalingConfig"),
        (
            "GET",
            "/2026-07-09/resource-policy/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Amade",
            "GetResourcePolicy",
        ),
    ],
)
async def test_what_is_not_offered_is_named(api, method, path, action):
    text = await api.refused(method, path, None, 400, "InvalidParameterValueException")
    assert text.startswith(f"{action} is not offered: ")
