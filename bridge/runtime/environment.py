"""The environment and paths of a function's workers (semantics 6.5); nothing of the daemon's own gets in."""

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from bridge.core.function import FunctionVersion, Interpreter
from bridge.core.logging_config import JSON
from bridge.runtime import commands, mounts, sandbox

_EXEC_PREFIXES: Final = ("LD_", "PYTHON", "MALLOC_")
_BOOTSTRAP: Final = Path(__file__).with_name("bootstrap.py")
_LIBRARIES: Final = "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:{root}:{root}/lib:{opt}/lib"


def interpreter() -> str:
    """Return the interpreter that runs functions: the base one, not a virtual environment's link to it."""
    return os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)


def interpreter_paths(others: Iterable[Interpreter] = ()) -> list[str]:
    """Return the folders a worker needs besides its code; `others` are the interpreters of some functions.

    One that was uninstalled is left out: it stops the functions that it ran, not all of them.
    """
    own = {os.path.realpath(sys.base_prefix), str(Path(interpreter()).parent), str(_BOOTSTRAP.parent)}
    for other in others:
        if other.program:
            own |= {other.prefix, str(Path(other.program).parent), str(Path(os.path.realpath(other.program)).parent)}
    return sorted(path for path in own if Path(path).exists())


def python_version(version: FunctionVersion) -> str:
    """Return which Python runs a function: `3.12`."""
    if version.interpreter is not None:
        return version.interpreter.version
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def needs_exec(version: FunctionVersion) -> bool:
    """Tell whether workers must be exec'd: the loader and the interpreter read these only when they start.

    What the Runtime API serves is a program of its own, whichever way its worker begins.
    """
    if commands.is_served(version):
        return False
    if version.interpreter is not None and version.interpreter.program:
        return True
    names = version.environment
    if commands.EXEC_WRAPPER in names or any(name.startswith(_EXEC_PREFIXES) for name in names):
        return True
    return any((Path(root) / "lib").is_dir() for root in (version.code, version.opt) if root)


def _virtualenv(version: FunctionVersion) -> str:
    return version.interpreter.virtualenv if version.interpreter is not None else ""


def shows_opt(version: FunctionVersion) -> bool:
    """Tell whether a function's layers may cover /opt: nothing that it needs is there."""
    needs = version.interpreter.needs if version.interpreter is not None else ()
    return bool(version.opt) and not any(path.startswith(mounts.OPT + "/") for path in needs)


def layer_paths(version: FunctionVersion, opt: str) -> list[str]:
    """Return the folders of a function's layers that Python imports from, those of its own python3.x first.

    Both count: the version that the function names, for which its layers were made, and the one that runs it here.
    """
    if not version.opt:
        return []
    names = [version.runtime, f"python{python_version(version)}"]
    pythons = dict.fromkeys(name for name in names if name.startswith("python3."))
    return [*(f"{opt}/python/lib/{python}/site-packages" for python in pythons), f"{opt}/python"]


def variables(
    version: FunctionVersion,
    *,
    stream: str,
    task_root: str,
    scratch: str,
    region: str,
    opt: str = mounts.OPT,
    is_provisioned: bool = False,
) -> dict[str, str]:
    """Return the environment of one worker: what may be overridden, the customer's, then what is reserved."""
    defaults = {
        "LANG": "en_US.UTF-8",
        "LC_CTYPE": "C.UTF-8",
        "TZ": ":UTC",
        "PATH": f"/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:{opt}/bin",
        "LD_LIBRARY_PATH": _LIBRARIES.format(root=task_root, opt=opt),
        "PWD": task_root,
        "SHLVL": "0",
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
    }
    if scratch != "/tmp":  # noqa: S108 - the worker's own
        defaults["TMPDIR"] = scratch
    if commands.is_served(version):
        defaults |= commands.defaults(version, task_root=task_root, opt=opt)
        named = "" if commands.language(version) == commands.NATIVE else version.runtime
    else:
        # A virtual environment's packages come before ours, and it has its own place for them.
        last = () if _virtualenv(version) else (mounts.RUNTIME_FOLDER,)
        defaults["PYTHONPATH"] = ":".join((*layer_paths(version, opt), *last))
        named = f"python{python_version(version)}"
    reserved = {
        "_HANDLER": version.handler,
        "AWS_REGION": version.region or region,
        "AWS_DEFAULT_REGION": version.region or region,
        **({"AWS_EXECUTION_ENV": f"AWS_Lambda_{named}"} if named else {}),  # none of a bootstrap of one's own
        "AWS_LAMBDA_FUNCTION_NAME": version.plain_name,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(version.memory_mb),
        "AWS_LAMBDA_FUNCTION_VERSION": version.version,
        "AWS_LAMBDA_INITIALIZATION_TYPE": "provisioned-concurrency" if is_provisioned else "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": version.log_group,
        "AWS_LAMBDA_LOG_STREAM_NAME": stream,
        "LAMBDA_TASK_ROOT": task_root,
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
    }
    if version.logging.is_json:  # neither is there in text, as recorded
        reserved |= {"AWS_LAMBDA_LOG_FORMAT": JSON, "AWS_LAMBDA_LOG_LEVEL": version.logging.application_level}
    return defaults | dict(version.environment) | reserved


def init_settings(
    version: FunctionVersion, *, environment: Mapping[str, str], task_root: str, opt: str, packages: Path | None
) -> dict[str, Any]:
    """Return what the worker's first frame says."""
    other = version.interpreter.prefix if version.interpreter is not None else ""
    rewrite = [(other or os.path.realpath(sys.base_prefix), "/var/lang")]
    if task_root != mounts.TASK_ROOT:
        rewrite.insert(0, (task_root, mounts.TASK_ROOT))
    if opt != mounts.OPT:
        rewrite.insert(0, (opt, mounts.OPT))
    return {
        "environment": environment,
        "handler": version.handler,
        "task_root": task_root,
        "path": layer_paths(version, opt),
        "packages": [] if packages is None else [str(packages)],
        "rewrite": rewrite,
        "extensions": commands.extensions(version.opt),
    }


def exec_request(
    version: FunctionVersion, environment: Mapping[str, str], *, task_root: str, opt: str
) -> dict[str, Any]:
    """Return program, arguments and environment of an exec'd worker."""
    other = version.interpreter.program if version.interpreter is not None else ""
    # `site` makes a virtual environment one: sys.prefix, its packages, their .pth files; no packages of the user's.
    site = "-s" if _virtualenv(version) else "-S"
    python = [other or interpreter(), site, "-P", str(_BOOTSTRAP)]
    arguments = [*python, str(sandbox.SOCKET_DESCRIPTOR), str(sandbox.TOKENS_DESCRIPTOR)]
    arguments = commands.wrapped(arguments, environment, task_root=task_root, opt=opt)
    return {"program": arguments[0], "argv": arguments, "env": dict(environment)}


def api_settings(
    version: FunctionVersion, *, environment: Mapping[str, str], task_root: str, opt: str, process_namespace: bool
) -> dict[str, Any]:
    """Return what the first frame of a worker behind the Runtime API says.

    `process_namespace` says that its /proc shows its own processes alone.
    """
    return {
        "environment": environment,
        "commands": commands.commands(version, environment, task_root=task_root, opt=opt),
        "extensions": commands.extensions(version.opt),
        "opt": opt,
        "process_namespace": process_namespace,
    }
