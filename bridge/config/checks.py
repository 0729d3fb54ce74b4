"""Checks that one key alone cannot tell: routes that clash, functions that are not there, files that are missing.

They look at the expanded file, not at the settings, so that they find theirs beside every other mistake; what has
the wrong type is passed over here and told by its own section.
"""

import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from bridge.config import layers, mqtt, outcomes, queues, roles, runtimes, streams, virtualenvs
from bridge.config.expand import Expanded
from bridge.config.files import Unreadable, beside, read_small, reason
from bridge.config.mistakes import Loc, near, plain
from bridge.config.settings import API_DEFAULT, PUBLIC_DEFAULT
from bridge.config.tree import table, tables
from bridge.config.values import SECRET_HINT, Address, parse_address
from bridge.config.webhooks import GREETED, METHODS, default_methods
from bridge.core import limits
from bridge.core.function import split_target
from bridge.core.logging_config import JSON, TEXT
from bridge.registry.interpreters import PYTHON_RUNTIMES
from bridge.registry.packages import handler_files, handler_mistake, has_handler

Finding: TypeAlias = tuple[Loc, str]
_SECRET_NAME: Final = re.compile(r"PASSW|SECRET|TOKEN|CREDENTIAL|(?:^|_)(?:PASS|PWD|KEY|APIKEY)(?:_|$)", re.IGNORECASE)


def looks_secret(name: str) -> bool:
    """Say whether a variable of this name most likely holds a secret."""
    return _SECRET_NAME.search(name) is not None


def mistakes(data: Mapping[str, Any], folder: Path) -> Iterator[Finding]:
    """Yield what is wrong between the parts of a file, and between it and the disk."""
    yield from _functions(data, folder)
    yield from layers.mistakes(data, folder)
    yield from _routes(data)
    yield from _inputs(data)
    yield from _concurrency(data)
    yield from _listeners(data)
    yield from _tls_files(data, folder)
    yield from _client_tls_files(data, folder)
    yield from mqtt.mistakes(data)
    yield from streams.mistakes(data)
    yield from outcomes.mistakes(data)
    yield from roles.mistakes(data)
    yield from runtimes.mistakes(data, folder)
    yield from virtualenvs.mistakes(data, folder)
    yield from _folders(data, folder)


def warnings(data: Mapping[str, Any], folder: Path) -> Iterator[Finding]:
    """Yield what works and should not stay so: loosely kept secret files, secrets written as plain text."""
    for loc, written in _file_references(data):
        try:
            mode = (folder / written).stat().st_mode
        except (OSError, ValueError):
            continue  # told as a mistake
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            yield loc, f"the file can be read by others (mode {stat.S_IMODE(mode):04o}); chmod 600 it"
    yield from _targets(data)
    yield from mqtt.warnings(data)
    yield from queues.warnings(data)
    for name, function in tables(data, "functions"):
        for variable, value in table(function, "environment").items():
            if isinstance(value, str) and not isinstance(value, Expanded) and looks_secret(variable):
                yield ("functions", name, "environment", variable), f"a secret in plain text? {SECRET_HINT}"


def _functions(data: Mapping[str, Any], folder: Path) -> Iterator[Finding]:
    has_steps = table(data, "invocation").get("legacy_memory_steps") is True
    for name, function in tables(data, "functions"):
        memory = function.get("memory_mb")
        if has_steps and isinstance(memory, int) and not _is_step(memory):
            text = f"must be a multiple of {limits.LEGACY_MEMORY_STEP_MB}, {limits.LEGACY_MEMORY_MAX_MB} at most"
            yield ("functions", name, "memory_mb"), f"{text}, with invocation.legacy_memory_steps"
        logging = table(function, "logging_config")
        for key in ("application_log_level", "system_log_level"):
            if key in logging and logging.get("log_format", TEXT) == TEXT:
                yield ("functions", name, "logging_config", key), f'counts where log_format is "{JSON}"'
        code, handler = function.get("code"), function.get("handler")
        if not isinstance(code, str) or not code:
            continue
        path = beside(folder, code)
        if fault := _folder_fault(path):
            yield ("functions", name, "code"), fault
        elif function.get("runtime", "") not in ("", *PYTHON_RUNTIMES):
            continue
        elif isinstance(handler, str) and not handler_mistake(handler) and not _can_hold(path, handler):
            yield ("functions", name, "handler"), f"no {handler_files(handler)[0]} in the code folder"


def _is_step(memory_mb: int) -> bool:
    return memory_mb % limits.LEGACY_MEMORY_STEP_MB == 0 and memory_mb <= limits.LEGACY_MEMORY_MAX_MB


def _can_hold(path: Path, handler: str) -> bool:
    try:
        return has_handler(path, handler)
    except (OSError, ValueError):
        return False  # a NUL in the handler, a folder that may not be entered


def _targets(data: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield names of functions that the file does not declare: Lambda's API may have made them, or will."""
    functions = [name for name, _ in tables(data, "functions", broken=True)]
    for group in ("sources", "mappings"):
        for name, asking in tables(data, group):
            target = asking.get("function")
            if isinstance(target, str) and (wanted := split_target(target)[0]) not in functions:
                text = f"no function {plain(wanted)} in this file: one is meant that Lambda's API makes"
                yield (group, name, "function"), text + near(wanted, functions)


def _routes(data: Mapping[str, Any]) -> Iterator[Finding]:
    owners: dict[tuple[str, str], str] = {}
    for name, source in tables(data, "sources"):
        path, methods = source.get("path"), source.get("methods")
        if not isinstance(path, str):
            continue
        if not isinstance(methods, list):
            methods = default_methods(str(source.get("invocation_type")))
        methods = [*methods, *GREETED.get(str(source.get("format")), ())]
        for method in (method for method in METHODS if method in methods):
            owner = owners.setdefault((method, path), name)
            if owner != name:
                yield ("sources", name, "path"), f"{method} on this path is already the route of sources.{plain(owner)}"
                break


def _inputs(data: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield events of schedules that are larger than an asynchronous one may be."""
    most = table(data, "invocation").get("async_payload_max_bytes", limits.ASYNC_PAYLOAD_MAX_BYTES)
    for name, source in tables(data, "sources"):
        given = source.get("input")
        if isinstance(given, str) and isinstance(most, int) and (size := len(given.strip().encode())) > most:
            yield ("sources", name, "input"), f"has {size} bytes; invocation.async_payload_max_bytes is {most}"


def _concurrency(data: Mapping[str, Any]) -> Iterator[Finding]:
    account = table(data, "invocation").get("account_concurrency", limits.ACCOUNT_CONCURRENCY_DEFAULT)
    total = 0
    for name, function in tables(data, "functions"):
        reserved = function.get("reserved_concurrency")
        if isinstance(reserved, int) and isinstance(account, int) and reserved > 0:
            total += reserved
            if total > account > 0:
                text = f"brings what functions reserve to {total}; invocation.account_concurrency is {account}"
                yield ("functions", name, "reserved_concurrency"), text
                return


def _listeners(data: Mapping[str, Any]) -> Iterator[Finding]:
    listen = table(data, "listen")
    addresses: dict[str, Address] = {}
    for key, default in (("public", PUBLIC_DEFAULT), ("api", API_DEFAULT)):
        written = listen.get(key, str(default))
        try:
            addresses[key] = parse_address(written)
        except (TypeError, ValueError):
            continue
        if not addresses[key].is_loopback and "tls" not in listen:
            text = 'reachable from elsewhere: tls must be written, as { cert, key }, "upstream" or "off"'
            yield ("listen", key), text
        if key == "api" and not addresses[key].is_loopback and table(data, "api").get("auth") == "none":
            text = '"none" is for loopback only, and listen.api is reachable from elsewhere; write [access_keys.X]'
            yield ("api", "auth"), text
        if key == "api" and not addresses[key].is_loopback and table(data, "dev").get("reset") is True:
            yield ("dev", "reset"), "is for loopback only, and listen.api is reachable from elsewhere"
    if len(addresses) == 2 and addresses["public"] == addresses["api"] and addresses["api"].port:
        yield ("listen", "api"), "the same address as listen.public"


def _tls_files(data: Mapping[str, Any], folder: Path) -> Iterator[Finding]:
    tls = table(table(data, "listen"), "tls")
    if isinstance(tls.get("cert"), str) and isinstance(tls.get("key"), str):
        yield from _pem_files(("listen", "tls"), tls, folder)


def _client_tls_files(data: Mapping[str, Any], folder: Path) -> Iterator[Finding]:
    clients = [(group, *each) for group in ("connections", "sources") for each in tables(data, group)]
    for group, name, connection in clients:
        tls = table(connection, "tls")
        loc = (group, name, "tls")
        for key, other in (("cert", "key"), ("key", "cert")):
            if other in tls and key not in tls:
                yield (*loc, key), f"missing: a client's certificate is cert and key; {other} is there"
        yield from _pem_files(loc, tls, folder)


def _pem_files(loc: Loc, tls: Mapping[str, Any], folder: Path) -> Iterator[Finding]:
    """Yield what keeps the files of a table with `ca`, `cert` and `key` from being used."""
    files = {name: tls[name] for name in ("ca", "cert", "key") if isinstance(tls.get(name), str)}
    broken: set[str] = set()
    for name, written in files.items():
        try:
            read_small(folder / written, max_bytes=limits.MIB)
        except Unreadable as error:
            broken.add(name)
            yield (*loc, name), str(error)
    sound = files.keys() - broken
    if not sound:
        return
    import ssl

    if "ca" in sound:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(folder / files["ca"])
        except (OSError, ValueError):
            yield (*loc, "ca"), "holds no certificate in PEM"
    if {"cert", "key"} <= sound:
        try:
            # The empty passphrase keeps OpenSSL from asking for one on the terminal.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(folder / files["cert"], folder / files["key"], password=lambda: b"")
        except (OSError, ValueError):
            yield loc, "certificate and key are not a pair in PEM, or the key has a passphrase"


def _folders(data: Mapping[str, Any], folder: Path) -> Iterator[Finding]:
    packages = table(data, "runtime").get("packages")
    if isinstance(packages, str) and packages and (fault := _folder_fault(beside(folder, packages))):
        yield ("runtime", "packages"), fault
    api = table(data, "api")
    code = api.get("code_folder")
    if isinstance(code, str) and code and (fault := _folder_fault(beside(folder, code))):
        yield ("api", "code_folder"), fault
    for section, key in (("api", "code_connection"), ("logs", "connection")):
        connection = table(data, section).get(key)
        if isinstance(connection, str) and connection:
            yield from streams.connection_of_aws((section, key), connection, data)
    state = data.get("state")
    if isinstance(state, str) and state and "\0" not in state:
        try:
            if not stat.S_ISDIR(beside(folder, state).stat().st_mode):
                yield ("state",), "is not a folder"
        except FileNotFoundError:
            pass  # made at the first start
        except OSError as error:
            yield ("state",), reason(error)


def _folder_fault(path: Path) -> str:
    shown = str(path) if str(path).isprintable() else ascii(str(path))
    try:
        return "" if stat.S_ISDIR(path.stat().st_mode) else f"{shown} is not a folder"
    except FileNotFoundError:
        return f"no such folder: {shown}"
    except OSError as error:
        return f"{shown}: {reason(error)}"
    except ValueError:
        return "not a path"


def _file_references(value: Any, loc: Loc = ()) -> Iterator[tuple[Loc, str]]:
    """Yield every `{ file = "path" }`, and the private keys of TLS."""
    is_key = loc[-2:] == ("tls", "key") and loc[0] in ("listen", "connections", "sources")
    if is_key and isinstance(value, str):
        yield loc, value
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _file_references(item, (*loc, index))
    elif isinstance(value, dict):
        if len(value) == 1 and isinstance(value.get("file"), str):
            yield loc, value["file"]
        else:
            for key, item in value.items():
                yield from _file_references(item, (*loc, key))
