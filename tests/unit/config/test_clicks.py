"""The sample function of the quickstart's mapping counts the clicks of a batch, from every partition."""

import importlib.util
from pathlib import Path
from types import ModuleType

import orjson
import pytest

from bridge.events.generate import kafka_event
from bridge.events.kafka import CREATE_TIME, KafkaRecord

FILE = Path(__file__).parents[3] / "config/functions/clicks/app.py"


@pytest.fixture(scope="module")
def app() -> ModuleType:
    spec = importlib.util.spec_from_file_location("clicks_app", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def event(*clicks: dict) -> dict:
    records = [
        KafkaRecord(
            topic="clicks", partition=number % 2, offset=number, timestamp_ms=0, timestamp_type=CREATE_TIME,
            key=None, value=orjson.dumps(click), headers=(),
        )
        for number, click in enumerate(clicks)
    ]  # fmt: skip
    return orjson.loads(kafka_event(records, bootstrap_servers="localhost:9092"))


def test_counts(app: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    app.handler(event({"page": "/b"}, {"page": "/a"}, {"page": "/b"}), None)

    assert capsys.readouterr().out == "/a: 1 /b: 2\n"


def test_a_click_without_a_page_fails_the_batch(app: ModuleType) -> None:
    with pytest.raises(KeyError, match="page"):
        app.handler(event({"page": "/a"}, {}), None)
