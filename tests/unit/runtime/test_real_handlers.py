"""Handlers as people have them, unchanged: Powertools' logger and metrics in Python; Node.js with packages of npm."""

import json
import shutil
import sysconfig
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from bridge.core.invocation import ResultKind
from tests import tools
from tests.unit.runtime.conftest import Runner, own_pool
from tests.unit.runtime.test_node import installed, written

pytestmark = pytest.mark.asyncio(loop_scope="module")

SITE = Path(sysconfig.get_path("purelib"))
SHIPPED = ("aws_lambda_powertools", "jmespath", "typing_extensions.py")
PYTHON = """
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.metrics import MetricUnit

logger = Logger(service="orders")
metrics = Metrics(namespace="shop", service="orders")


@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_HTTP, clear_state=True)
@metrics.log_metrics(capture_cold_start_metric=True)
def handler(event, context):
    logger.append_keys(order=event["order"])
    metrics.add_metric(name="Taken", unit=MetricUnit.Count, value=1)
    if event["order"] < 0:
        logger.exception("no such order")
        raise ValueError("no such order")
    logger.info("taken", extra={"more": {"a": 1}})
    return event["order"]
"""
MODULE = """
import middy from "@middy/core";
import httpJsonBodyParser from "@middy/http-json-body-parser";
import { Logger } from "@aws-lambda-powertools/logger";
import { injectLambdaContext } from "@aws-lambda-powertools/logger/middleware";

const logger = new Logger({ serviceName: "orders" });

export const handler = middy()
  .use(injectLambdaContext(logger))
  .use(httpJsonBodyParser())
  .handler(async (event, context) => {
    logger.info("taken", { order: event.body.order });
    return { statusCode: 201, body: JSON.stringify({ order: event.body.order, left: context.getRemainingTimeInMillis() > 0 }) };
  });
"""
COMMON = """
const { Logger } = require("@aws-lambda-powertools/logger");
const logger = new Logger({ serviceName: "orders" });

exports.handler = (event, context, callback) => {
  logger.addContext(context);
  logger.warn("taken", new Error("only in the log"));
  callback(null, { order: event.order });
};
"""


def records(result):
    """Return the log's lines that are JSON objects."""
    return [json.loads(line) for line in result.log_tail.decode().splitlines() if line.startswith("{")]


async def test_powertools_logger_and_metrics(runner, tmp_path):
    code = written(tmp_path / "code", {"app.py": PYTHON})
    for name in SHIPPED:
        target = tmp_path / "code" / name
        shutil.copytree(SITE / name, target) if (SITE / name).is_dir() else shutil.copy(SITE / name, target)
    event = {"order": 7, "requestContext": {"requestId": "of-the-gateway"}}
    seen = []
    for is_cold in (True, False):
        invocation = runner.invocation(event)
        result = await runner.run("app.handler", invocation=invocation, code=code, memory_mb=256)
        assert json.loads(result.payload) == 7
        (record,) = [each for each in records(result) if each.get("message") == "taken"]
        assert (record["level"], record["service"], record["order"], record["more"]) == ("INFO", "orders", 7, {"a": 1})
        assert (record["cold_start"], record["correlation_id"]) == (is_cold, "of-the-gateway")
        assert (record["function_request_id"], record["function_memory_size"]) == (invocation.request_id, "256")
        seen.append([each for each in records(result) if "_aws" in each])
        (taken,) = [each for each in seen[-1] if "Taken" in each]
        (directive,) = taken["_aws"]["CloudWatchMetrics"]
        assert (directive["Namespace"], taken["Taken"], taken["service"]) == ("shop", [1.0], "orders")
    assert [sum("ColdStart" in each for each in each_run) for each_run in seen] == [1, 0]

    result = await runner.run("app.handler", {**event, "order": -1}, code=code, memory_mb=256)
    assert (result.kind, result.error_type) == (ResultKind.FUNCTION_ERROR, "ValueError")
    assert [each["level"] for each in records(result) if "_aws" not in each] == ["ERROR"]
    assert [each["Taken"] for each in records(result) if "Taken" in each] == [[1.0]], "metrics are sent all the same"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_nodes(tmp_path_factory) -> AsyncIterator[Runner]:
    async with own_pool(tmp_path_factory.mktemp("node"), workers_max=2, interpreters=[installed()]) as runner:
        yield runner


@pytest_asyncio.fixture(loop_scope="module")
async def nodes(shared_nodes) -> AsyncIterator[Runner]:
    yield shared_nodes
    await shared_nodes.clear()


@pytest.fixture
def packaged(tmp_path):
    """Return `packaged(files)`: a function's folder as one ships it, with what `npm ci` has brought."""

    def packaged(files):
        shutil.copytree(tools.node_packages(), tmp_path / "code" / "node_modules")
        return written(tmp_path / "code", files)

    return packaged


async def test_an_es_module_with_middleware_of_npm(nodes, packaged):
    code = packaged({"index.mjs": MODULE})
    own = {"runtime": "nodejs22.x", "interpreter": installed(), "memory_mb": 256, "code": code}
    event = {"headers": {"content-type": "application/json"}, "body": '{"order": 7}'}
    invocation = nodes.invocation(event)
    result = await nodes.run("index.handler", invocation=invocation, **own)
    answer = json.loads(result.payload)
    assert (answer["statusCode"], json.loads(answer["body"])) == (201, {"order": 7, "left": True})
    (record,) = records(result)
    assert (record["message"], record["order"], record["service"]) == ("taken", 7, "orders")
    assert (record["function_request_id"], record["cold_start"]) == (invocation.request_id, True)

    result = await nodes.run("index.handler", {**event, "body": "no JSON"}, **own)
    error = json.loads(result.payload)
    assert result.kind is ResultKind.FUNCTION_ERROR
    assert error["errorType"] == "UnsupportedMediaTypeError"


async def test_a_commonjs_handler_with_packages_of_npm(nodes, packaged):
    code = packaged({"index.js": COMMON})
    result = await nodes.run(
        "index.handler", {"order": 8}, runtime="nodejs22.x", interpreter=installed(), memory_mb=256, code=code
    )
    assert json.loads(result.payload) == {"order": 8}
    (record,) = records(result)
    assert (record["level"], record["message"], record["error"]["message"]) == ("WARN", "taken", "only in the log")
