"""Runs pools as a user that is not root and prints what their functions could reach; a script of test_not_root.py.

Arguments: a folder that this user may write to, the sandboxes.
"""

import asyncio
import json
import os
import socket
import sys
from pathlib import Path

from bridge.config.load import load
from bridge.core.errors import ConfigError
from bridge.daemon.confinement import check_confinement
from bridge.runtime import mounts, syscalls
from tests.harness import ROOT
from tests.unit.runtime.conftest import own_pool

NOBODY = 65_534
CONFIG = """
listen = { api = '0.0.0.0:8599', tls = 'upstream' }
access_keys = { BRIDGEKEY = { secret = { env = 'LAMBDA_SECRET' } } }
"""
REACH = """
import errno, os, socket
answer = {"uid": os.getuid()}
for name, path in PATHS.items():
    try:
        answer[name] = open(path).read()
    except OSError as error:
        answer[name] = errno.errorcode[error.errno]
try:
    socket.create_connection(("127.0.0.1", PORT), timeout=30).close()
    answer["port"] = "connected"
except OSError as error:
    answer["port"] = errno.errorcode[error.errno]
"""


def become_nobody() -> None:
    """Give up root, and open the way to the interpreter and to these files for others, in a mount namespace of its own."""
    mounts.enter(in_user_namespace=False)
    needed = {os.path.realpath(path) for path in (sys.prefix, sys.base_prefix, ROOT, *sys.path) if os.path.exists(path)}
    for closed in sorted({folder for path in needed if (folder := mounts.first_closed(path))}):
        mounts._open_way(closed, sorted(path for path in needed if path.startswith(closed + "/")))
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    syscalls.set_dumpable(dumpable=True)


def refusal(folder: Path, level: str, facts: list[tuple[str, bool, str]]) -> str:
    """Return why functions may not be made from elsewhere with this confinement; empty: they may."""
    file = folder / "bridge.toml"
    file.write_text(CONFIG)
    os.environ["LAMBDA_SECRET"] = "a-secret-of-this-test"
    try:
        check_confinement(load(file).settings, level=level, facts=facts, is_reachable=True)
    except ConfigError as error:
        return str(error)
    return ""


async def told(folder: Path, sandbox: str) -> dict[str, object]:
    """Return what confines a function in this sandbox, and what it reached."""
    folder.mkdir()
    state, key = folder / "state", folder / "state.key"
    state.mkdir(mode=0o700)
    paths = {"state": state / "secret", "key": key}
    for path in paths.values():
        path.write_text("secret")
        path.chmod(0o600)
    with socket.create_server(("127.0.0.1", 0)) as api:
        port = api.getsockname()[1]
        options = {"deny_paths": [state, key], "deny_ports": [port], "sandbox": sandbox, "workers_max": 2}
        async with own_pool(state, **options) as runner:
            named = {name: str(path) for name, path in paths.items()}
            reached = await runner.code(REACH.replace("PATHS", repr(named)).replace("PORT", str(port)))
            level, facts = runner.pool.sandbox_level(), runner.pool.sandbox_facts()
    return {
        "level": level,
        "facts": {name: ok for name, ok, _ in facts},
        "landlock": next((detail for name, _, detail in facts if name == "landlock"), ""),
        "refusal": refusal(folder, level, facts),
        "reached": reached,
    }


async def main(folder: Path, sandboxes: list[str]) -> None:
    print(json.dumps({sandbox: await told(folder / sandbox, sandbox) for sandbox in sandboxes}))


if __name__ == "__main__":
    if os.geteuid() == 0:
        become_nobody()
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2:]))
