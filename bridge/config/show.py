"""Prints settings: as a file that could be loaded again, secrets masked, and as a JSON Schema for editors."""

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Final

from bridge.config.checks import looks_secret
from bridge.config.section import Section
from bridge.config.settings import Settings
from bridge.config.values import MASK, Address, Secret

_NAMED: Final = ("access_keys", "connections", "functions", "sources", "mappings")


def show(settings: Settings) -> str:
    """Return the settings in force as TOML: defaults filled in, paths absolute, secrets as their references.

    A variable of a function that stands in the file as plain text is shown, unless its name says secret.
    """
    import tomlkit  # only this command writes TOML

    document = tomlkit.document()
    tables: dict[str, Any] = {}
    for key, value in _plain(settings).items():
        if isinstance(value, dict):
            tables[key] = value  # TOML wants them behind the single keys
        else:
            document.add(key, value)
    for key, value in tables.items():
        if key not in _NAMED:
            document.add(key, _section(value))
            continue
        group = tomlkit.table(is_super_table=True)
        for name, item in value.items():
            group.add(name, _section(item))
        if value:
            document.add(key, group)
    return tomlkit.dumps(document)


def _section(values: Mapping[str, Any]) -> Any:
    import tomlkit

    table = tomlkit.table()
    for key, value in values.items():
        table.add(key, _inline(value))
    return table


def _inline(value: Any) -> Any:
    import tomlkit

    if isinstance(value, dict):
        table = tomlkit.inline_table()
        for key, item in value.items():
            table.add(key, _inline(item))
        return table
    if isinstance(value, list):
        array = tomlkit.array()
        for item in value:
            array.append(_inline(item))
        return array
    return value


def _plain(value: Any) -> Any:
    """Return settings as TOML's types; what is None is left out, as in the file."""
    if isinstance(value, Secret):
        return dict(value.written) if isinstance(value.written, Mapping) else value.written
    if isinstance(value, Section):
        members = {name: getattr(value, name) for name in type(value).model_fields} | (value.model_extra or {})
        if "environment" in members:
            members["environment"] = {name: _variable(name, item) for name, item in members["environment"].items()}
        return {name: _plain(item) for name, item in members.items() if item is not None}
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path | Address) else value


def _variable(name: str, secret: Secret) -> Secret | str:
    return MASK if looks_secret(name) and isinstance(secret.written, str) else secret


def schema() -> dict[str, Any]:
    """Return the JSON Schema of the file, for editors (`#:schema ./bridge.schema.json`)."""
    generated = Settings.model_json_schema()
    _without_titles(generated)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "bridge configuration", **generated}


def _without_titles(node: Any) -> None:
    """Drop the titles that pydantic makes of names; an editor shows the name already."""
    if isinstance(node, dict):
        if isinstance(node.get("title"), str):
            del node["title"]
        for value in node.values():
            _without_titles(value)
    elif isinstance(node, list):
        for value in node:
            _without_titles(value)
