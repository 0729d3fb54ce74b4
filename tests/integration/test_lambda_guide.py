"""The commands of docs/lambda-api.md, run as they are written and in their order, by the AWS CLI and ours."""

import os
import re
import shlex
import subprocess
import sys

import pytest

from tests.brokers.emulators import HOW_TO_GET_IT, awscli
from tests.harness import ROOT, request, write_function

pytestmark = [pytest.mark.integration, pytest.mark.slow]

GUIDE = (ROOT / "docs/lambda-api.md").read_text()
COMMANDS = re.findall(r"^```sh\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
CONFIG = """
[access_keys.BRIDGEADMIN]
secret = {{ env = "LAMBDA_SECRET" }}

[functions.hello]
code = "{code}"
handler = "app.handler"

[sources.orders]
type = "webhook"
path = "/orders"
function = "hello"
verify = "none"
policy = "explicit"

[connections.aws]
type = "aws"
region = "us-east-1"
endpoint_url = "http://127.0.0.1:1"
access_key_id = "any"
secret_access_key = {{ env = "LAMBDA_SECRET" }}
"""
CODE = "def handler(event, context):\n    return 'hello'\n"
SECRET = "a-canary-that-signs"
URL = f"{sys.executable} -c 'import json, sys; print(json.load(sys.stdin)[\"FunctionUrl\"])'"
"""Prints the URL of what `bridge functions url --json` tells."""


def script(path, *command):
    path.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, command))} "$@"\n')
    path.chmod(0o755)


def test_it_is_as_written(daemon, tmp_path):
    program = awscli()
    if program is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"no awscli on this machine: {HOW_TO_GET_IT}")
    folder = tmp_path / "work"
    code = write_function(folder / "greet", CODE)
    (folder / "app.py").write_text(CODE)
    bridge = daemon(CONFIG.format(code=code), LAMBDA_SECRET=SECRET)
    (folder / ".curlrc").write_text("fail\nsilent\n")
    (tmp_path / "bin").mkdir()
    script(tmp_path / "bin/aws", "env", "-u", "PYTHONPATH", program.parent / "python", program)
    script(tmp_path / "bin/bridge", sys.executable, "-m", "bridge", "--state", bridge.state)
    script(tmp_path / "bin/zip", sys.executable, "-m", "zipfile", "-c")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "BRIDGE_"))}
    environment = clean | {
        "PATH": f"{tmp_path / 'bin'}:{clean['PATH']}", "PYTHONPATH": str(ROOT), "LAMBDA_SECRET": SECRET, "AWS_PAGER": "",
        "AWS_EC2_METADATA_DISABLED": "true", "HOME": str(folder),
    }  # fmt: skip
    text = "\n".join(COMMANDS).replace("127.0.0.1:8581", bridge.api.removeprefix("http://"))
    text = text.replace(
        "http://ID.lambda-url.us-east-1.localhost:8580/", f"$(bridge functions url greet --json | {URL})"
    )
    done = subprocess.run(
        ["bash", "-euxc", text], cwd=folder, env=environment, capture_output=True, text=True, timeout=300,
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert done.stdout.endswith("hello"), "the function URL answers"
    assert request("POST", f"{bridge.public}/orders", body=b"{}").status == 202, "the statement lets the route in"
