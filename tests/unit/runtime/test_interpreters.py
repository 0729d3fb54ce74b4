"""A version whose runtime the file maps to another Python runs there: the version, the traces, the environment."""

import os
import shutil
import sys

import pytest

from bridge.core.errors import ConfigError
from bridge.core.function import Interpreter
from bridge.registry.interpreters import interpreter
from tests.unit.runtime.conftest import own_pool

pytestmark = pytest.mark.asyncio(loop_scope="function")


def pythons() -> list[Interpreter]:
    """Return the interpreters there are: that of these tests, and any other that functions may run on."""
    own = os.path.realpath(getattr(sys, "_base_executable", sys.executable) or sys.executable)
    found = {own: interpreter(own)}
    for name in ("python3.11", "python3.12", "python3.13", "python3.14"):
        path = shutil.which(name, path="/usr/bin:/usr/local/bin")
        if path is not None and not path.startswith(os.path.expanduser("~")):
            try:
                found[os.path.realpath(path)] = interpreter(path)
            except ConfigError:
                continue
    return list(found.values())


@pytest.mark.parametrize("other", pythons(), ids=lambda other: other.program)
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
