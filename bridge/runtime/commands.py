"""Which program runs a function that is no Python of ours, and the variables of its language (semantics 6.5)."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bridge.core.function import FunctionVersion
from bridge.runtime import mounts

EXEC_WRAPPER: Final = "AWS_LAMBDA_EXEC_WRAPPER"
CLIENTS: Final = Path(__file__).parent / "clients"
"""Our own clients of the Runtime API."""
BOOTSTRAP: Final = "bootstrap"
NATIVE: Final = "native"
PYTHON: Final = "python"
NODE_HEAP_SHARE: Final = 0.9
"""Of a function's memory, for V8's old generation."""
NODE_HEADER_MAX_BYTES: Final = 81_920
"""A client context is a header, and larger than Node takes otherwise."""
RUBY_PLAIN: Final = ("--disable=error_highlight", "--disable=did_you_mean")
"""Ruby 3.1 puts hints into the messages of exceptions, those that AWS has do not."""


def language(version: FunctionVersion) -> str:
    """Return what runs a function: `python`, `node`, `ruby`, a `command`, or `native`, its own bootstrap."""
    if version.interpreter is not None:
        return version.interpreter.language
    return NATIVE if version.runtime.startswith(("provided", "go1")) else PYTHON


def is_served(version: FunctionVersion) -> bool:
    """Tell whether it runs behind the Runtime API; else our Python bootstrap runs it."""
    return language(version) != PYTHON


def commands(
    version: FunctionVersion, environment: Mapping[str, str], *, task_root: str, opt: str
) -> tuple[list[str], ...]:
    """Return programs with their arguments; the first one that is there runs the function."""
    kind = language(version)
    if kind == NATIVE:
        if version.runtime.startswith("go1"):
            return ([f"{task_root}/{version.handler}"],)
        return [f"{task_root}/{BOOTSTRAP}"], [f"{opt}/{BOOTSTRAP}"]
    assert version.interpreter is not None
    if kind == "node":
        heap_mb = int(version.memory_mb * NODE_HEAP_SHARE)
        command = [
            version.interpreter.program, f"--max-old-space-size={heap_mb}",
            f"--max-http-header-size={NODE_HEADER_MAX_BYTES}", str(CLIENTS / "node.mjs"),
        ]  # fmt: skip
    elif kind == "ruby":
        plain = RUBY_PLAIN if version.interpreter.version.startswith("3.1.") else ()
        command = [version.interpreter.program, *plain, str(CLIENTS / "ruby.rb")]
    else:
        named = {"{handler}": version.handler, "{task_root}": task_root, "{opt}": opt}
        command = [_filled(part, named) for part in version.interpreter.command]
    return (wrapped(command, environment, task_root=task_root, opt=opt),)


def _filled(text: str, named: Mapping[str, str]) -> str:
    for name, value in named.items():
        text = text.replace(name, value)
    return text


def wrapped(command: list[str], environment: Mapping[str, str], *, task_root: str, opt: str) -> list[str]:
    """Return a command behind the function's wrapper script, if it has one."""
    wrapper = environment.get(EXEC_WRAPPER)
    if not wrapper:
        return command
    for shown, real in ((mounts.TASK_ROOT, task_root), (mounts.OPT, opt)):
        if wrapper.startswith(shown + "/"):
            wrapper = real + wrapper.removeprefix(shown)
            break
    return [wrapper, *command]


def extensions(opt: str) -> list[str]:
    """Return the names of the external extensions that a function's layers hold; `opt` is empty without layers."""
    if not opt:
        return []
    try:
        return sorted(entry.name for entry in os.scandir(Path(opt) / "extensions") if entry.is_file())
    except OSError:
        return []


def defaults(version: FunctionVersion, *, task_root: str, opt: str) -> dict[str, str]:
    """Return what only functions of this language find in their environment, unless they set it themselves."""
    if version.runtime.startswith("nodejs") and version.interpreter is not None:
        major = version.interpreter.version.partition(".")[0]
        majors = dict.fromkeys((version.runtime.removeprefix("nodejs").removesuffix(".x"), major))
        folders = [*(f"{opt}/nodejs/node{major}/node_modules" for major in majors), f"{opt}/nodejs/node_modules"]
        return {"NODE_PATH": ":".join((*folders, f"{mounts.RUNTIME_FOLDER}/node_modules", task_root))}
    if version.runtime.startswith("ruby"):
        names = [version.runtime.removeprefix("ruby")]
        if version.interpreter is not None and version.interpreter.version:
            names.append(version.interpreter.version.rpartition(".")[0])
        own = [f"{task_root}/vendor/bundle/ruby/{name}.0" for name in dict.fromkeys(names)]
        layers = [f"{opt}/ruby/gems/{name}.0" for name in dict.fromkeys(names)]
        return {"GEM_PATH": ":".join((*own, *layers)), "RUBYLIB": f"{task_root}:{opt}/ruby/lib"}
    return {}
