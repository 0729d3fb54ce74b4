"""An ASGI application behind Mangum, unchanged: on a route of the file and on a function URL of one daemon."""

import contextlib
import http.client
import json
import shutil
import sysconfig
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.harness import request, write_function
from tests.lambda_client import lambda_client

pytestmark = [pytest.mark.integration]

SITE = Path(sysconfig.get_path("purelib"))
SHIPPED = ("mangum", "starlette", "anyio", "idna", "typing_extensions.py")
CODE = """
from mangum import Mangum
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

async def order(request):
    seen = {
        "method": request.method, "path": request.url.path, "id": request.path_params.get("id"),
        "query": request.query_params.getlist("q"), "sent": (await request.body()).decode(),
        "cookie": request.cookies.get("a"), "header": request.headers.get("x-one"), "client": request.client.host,
        "context": request.scope["aws.context"].function_name, "event": request.scope["aws.event"]["version"],
    }
    answer = JSONResponse(seen, status_code=201, headers={"x-two": "2"})
    answer.set_cookie("a", "1")
    answer.set_cookie("b", "2")
    return answer


async def picture(request):
    return Response(bytes(range(256)), media_type="image/png")


async def parts(request):
    async def each():
        for number in range(3):
            yield f"{number}\\n"

    return StreamingResponse(each(), media_type="text/plain")


async def fails(request):
    raise ValueError("no way")


async def failed(request, error):
    return PlainTextResponse(str(error), status_code=418)


app = Starlette(
    routes=[
        Route("/orders", order, methods=["POST"]), Route("/orders/{id:int}", order, methods=["GET", "PUT"]),
        Route("/picture", picture), Route("/parts", parts), Route("/fails", fails),
    ],
    exception_handlers={ValueError: failed},
)
handler = Mangum(app)
"""
CONFIG = """
api = {{ auth = "none" }}

[functions.shop]
code = "{code}"
handler = "app.handler"
timeout_s = 60
memory_mb = 256

[sources.orders]
type = "webhook"
path = "/orders"
function = "shop"
invocation_type = "RequestResponse"
verify = "none"
"""


@pytest.fixture
def code(tmp_path):
    """A function's folder as one ships it: with what it needs beside it."""
    folder = write_function(tmp_path / "code", CODE)
    for name in SHIPPED:
        shutil.copytree(SITE / name, folder / name) if (SITE / name).is_dir() else shutil.copy(SITE / name, folder)
    folder.chmod(0o755)
    return folder


def cookies(bridge):
    """Return the cookies that an answer sets: headers of one name."""
    connection = http.client.HTTPConnection(urlsplit(bridge.public).netloc)
    with contextlib.closing(connection):
        connection.request("POST", "/orders")
        found = connection.getresponse().headers.get_all("set-cookie")
    return sorted(cookie.partition(";")[0] for cookie in found)


def test_a_route_and_a_function_url(daemon, code):
    bridge = daemon(CONFIG.format(code=code))
    headers = {"Content-Type": "text/plain", "X-One": "1", "Cookie": "a=x"}
    answer = request("POST", f"{bridge.public}/orders?q=1&q=2%20", body="é".encode(), headers=headers)

    assert answer.status == 201, (answer, bridge.log_tail())
    assert answer.headers["x-two"] == "2"
    assert answer.json() == {
        "method": "POST", "path": "/orders", "id": None, "query": ["1", "2 "], "sent": "é", "cookie": "x",
        "header": "1", "client": "127.0.0.1", "context": "shop", "event": "2.0",
    }  # fmt: skip
    assert cookies(bridge) == ["a=1", "b=2"]
    assert request("GET", f"{bridge.public}/orders").status == 405

    api = lambda_client(bridge)
    host = urlsplit(api.create_function_url_config(FunctionName="shop", AuthType="NONE")["FunctionUrl"]).netloc
    for sid, action, more in (
        ("url", "lambda:InvokeFunctionUrl", {"FunctionUrlAuthType": "NONE"}),
        ("invoke", "lambda:InvokeFunction", {"InvokedViaFunctionUrl": True}),
    ):
        api.add_permission(FunctionName="shop", StatementId=sid, Action=action, Principal="*", **more)

    def ask(method, path, body=None):
        return request(method, bridge.public + path, body=body, headers={"Host": host})

    answer = ask("PUT", "/orders/7?q=a", json.dumps({"b": 1}))
    assert answer.status == 201
    assert {
        "method": "PUT",
        "id": 7,
        "path": "/orders/7",
        "query": ["a"],
        "sent": '{"b": 1}',
    }.items() <= answer.json().items()
    answer = ask("GET", "/picture")
    assert (answer.headers["content-type"], answer.body) == ("image/png", bytes(range(256)))
    assert ask("GET", "/parts").body == b"0\n1\n2\n"
    assert (ask("GET", "/fails").status, ask("GET", "/fails").body) == (418, b"no way")
    assert ask("GET", "/nowhere").status == 404
