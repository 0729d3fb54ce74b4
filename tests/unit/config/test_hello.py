"""The sample function greets on both of the quickstart's routes."""

import base64
import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parents[3] / "config/functions/hello/app.py"


@pytest.fixture(scope="module")
def handler():
    spec = importlib.util.spec_from_file_location("hello_app", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.handler


@pytest.mark.parametrize(
    ("event", "name"),
    [
        ({"body": '{"name": "Ada"}', "isBase64Encoded": False}, "Ada"),
        ({"body": base64.b64encode(b'{"name": "Ada"}').decode(), "isBase64Encoded": True}, "Ada"),  # curl -d
        ({"queryStringParameters": {"name": "Ada"}, "isBase64Encoded": False}, "Ada"),
        ({"isBase64Encoded": False}, "world"),
        ({"body": "{}"}, "world"),
    ],
    ids=["json", "form", "query", "nothing", "empty"],
)
def test_greets(handler, capsys, event, name):
    assert handler(event, None) == {"message": f"Hello, {name}!"}
    assert capsys.readouterr().out == f"greeting {name}\n"
