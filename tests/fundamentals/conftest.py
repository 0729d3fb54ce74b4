"""A daemon with one small function, for tests that read as a tutorial."""

import pytest

from tests.harness import write_function

CODE = """
import json


def handler(event, context):
    order = json.loads(event["body"])
    if "amount" not in order:
        raise ValueError("an order without an amount")
    custom = context.client_context.custom if context.client_context else {}
    return {"order": order["amount"], "replay": (custom or {}).get("bridge-replay")}
"""

CONFIG = """
[functions.orders]
code = "{code}"
handler = "app.handler"
event_invoke = {{ retry_delays_s = [0.1, 0.1] }}

[sources.orders]
type = "webhook"
path = "/orders"
function = "orders"
verify = {{ scheme = "none", delivery_header = "X-Delivery-Id" }}

[sources.orders_now]
type = "webhook"
path = "/orders/now"
function = "orders"
verify = "none"
invocation_type = "RequestResponse"
"""


@pytest.fixture
def code(tmp_path):
    """The folder with the function's code."""
    return write_function(tmp_path / "orders", CODE)


@pytest.fixture
def bridge(daemon, code):
    """A running daemon."""
    return daemon(CONFIG.format(code=code))
