"""Every Python that is here runs functions: the version, the environment, errors, logs, and how a worker ends."""

import json
import os

import pytest

from bridge.core.logging_config import LoggingConfig
from tests.unit.runtime.conftest import own_pool
from tests.unit.runtime.pythons import pythons

pytestmark = pytest.mark.asyncio(loop_scope="function")

CODE = """
import dataclasses, logging, sys, time

logger = logging.getLogger()
logger.setLevel("INFO")


class Trouble(Exception):
    pass


def handler(event, context):
    print("printed", event["n"])
    logger.info("logged %s", event["n"])
    if event.get("fails"):
        raise Trouble("no way")
    if event.get("leaves"):
        sys.exit(3)
    return {"n": event["n"], "left": context.get_remaining_time_in_millis() > 0, "é": float("inf")}
"""


@pytest.mark.parametrize("other", pythons(), ids=lambda other: f"python{other.version}")
async def test_it_runs_on_the_interpreter_that_it_is_mapped_to(tmp_path, other):
    async with own_pool(tmp_path, interpreters=[other]) as runner:
        code = (
            "import os, sys\n"
            "answer = ['.'.join(map(str, sys.version_info[:2])), os.environ['AWS_EXECUTION_ENV'],"
            " os.path.realpath(sys.executable), [name for name in sys.modules if name.startswith('bridge')]]"
        )
        found = await runner.code(code, interpreter=other, runtime="python3.9")
        assert found == [
            other.version, f"AWS_Lambda_python{other.version}", os.path.realpath(other.program), [],
        ]  # fmt: skip

        (tmp_path / "code").mkdir(mode=0o755)
        (tmp_path / "code" / "app.py").write_text(CODE)

        async def ran(event, **fields):
            own = {"code": str(tmp_path / "code"), "interpreter": other, "runtime": f"python{other.version}"}
            return await runner.run("app.handler", {"n": 1, **event}, **own, **fields)

        result = await ran({})
        assert json.loads(result.payload) == {"n": 1, "left": True, "é": float("inf")}
        assert b"printed 1\n[INFO]\t" in result.log_tail
        failed = json.loads((await ran({"fails": True})).payload)
        assert (failed["errorType"], failed["errorMessage"]) == ("Trouble", "no way")
        assert failed["stackTrace"] == ['  File "/var/task/app.py", line 16, in handler\n    raise Trouble("no way")\n']
        assert json.loads((await ran({"leaves": True})).payload)["errorType"] == "Runtime.ExitError"
        tail = (await ran({}, logging=LoggingConfig(is_json=True, application_level="INFO"))).log_tail
        (line,) = [json.loads(each) for each in tail.splitlines() if b"logged" in each]
        assert (line["level"], line["message"], line["logger"]) == ("INFO", "logged 1", "root")
