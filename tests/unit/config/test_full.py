"""config/full.toml holds every setting with its range and default; config/quickstart.toml and the schema are fresh."""

import json
import random
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic_core import PydanticUndefined

from bridge.config.explain import _leaves
from bridge.config.load import load
from bridge.config.mistakes import ConfigErrors
from bridge.config.positions import key_lines
from bridge.config.section import Section
from bridge.config.settings import Settings, TlsFiles
from bridge.config.show import schema
from bridge.config.verify import SCHEMES, Anyone, Sns

CONFIG = Path(__file__).parents[3] / "config"
TEXT = (CONFIG / "full.toml").read_text()
STANDARD_SECRET = "whsec_" + "QUJD" * 10
ENVIRON = {
    name: STANDARD_SECRET if name.startswith("STANDARD") else "user:pass" for name in re.findall(r'env = "(\w+)"', TEXT)
}
SOURCES = {("sources", "hello"), ("sources", "nightly"), ("sources", "sensors")}
"""One of each type: their settings are described."""
NOT_DEFAULT = {
    ("runtimes",), ("roles", "worker", "managed"), ("roles", "worker", "statements"), ("functions", "hello", "role"), ("functions",), ("connections",), ("access_keys",), ("sources",), ("mappings",), ("functions", "hello", "environment"),
    ("functions", "hello", "vpc_config", "subnet_ids"), ("functions", "hello", "vpc_config", "security_group_ids"),
    ("functions", "hello", "reserved_concurrency"), ("functions", "billing", "connection"), ("sources", "hello", "methods"),
    ("sources", "anyone", "verify", "delivery_header"), ("connections", "secured", "tls"),
    ("connections", "secured", "sasl", "username"), ("sources", "orders_topic", "topics"),
    ("sources", "sensors", "format"), ("sources", "sensors", "username"), ("sources", "sensors", "will", "payload"),
    *(("sources", name, "format") for name in ("cloudevents", "orders_topic", "uploads", "bus", "lines")),
    *(("sources", name, key) for name in ("rest", "balancer") for key in ("format", "invocation_type")),
}  # fmt: skip
"""Settings whose default cannot be written, because it is to leave them out; and what others need to have a meaning."""


def sections(annotation: object) -> Iterator[type[Section]]:
    """Yield the sections that may stand where `annotation` is."""
    for _, leaf in _leaves(annotation):
        if isinstance(leaf, type) and issubclass(leaf, Section):
            yield leaf
        elif getattr(leaf, "__origin__", None) is dict:
            yield from sections(leaf.__args__[1])


def of_any_name(section: type[Section]) -> Iterator[type[Section]]:
    """Yield the section of the tables that stand beside a section's own keys."""
    if section.model_config.get("extra") == "allow":
        yield from sections(section.__annotations__["__pydantic_extra__"])


def all_sections() -> set[type[Section]]:
    found: set[type[Section]] = set()
    pending = [Settings]
    while pending:
        section = pending.pop()
        if section not in found:
            found.add(section)
            pending.extend(of_any_name(section))
            pending.extend(inner for field in section.model_fields.values() for inner in sections(field.annotation))
    return found


def walk(section: type[Section], data: dict, loc: tuple = ()) -> Iterator[tuple[tuple, type[Section], dict]]:
    """Yield every table of the file with the section it is."""
    yield loc, section, data
    for key, value in data.items():
        if key not in section.model_fields:  # one that may have any name
            yield from walk(next(of_any_name(section)), value, (*loc, key))
            continue
        annotation = section.model_fields[key].annotation
        inner = [s for s in sections(annotation) if "scheme" not in s.model_fields or s.__name__ == scheme_class(value)]
        if getattr(next(iter(_leaves(annotation)))[1], "__origin__", None) is dict and inner:
            for name, item in value.items():
                yield from walk(of_type(inner, item), item, (*loc, key, name))
        elif inner and isinstance(value, dict):
            yield from walk(inner[0], value, (*loc, key))


def of_type(inner: list[type[Section]], item: dict) -> type[Section]:
    """Return the section of a table: the one whose `type` it has, where several may stand there."""
    if len(inner) == 1:
        return inner[0]
    if "arn" in item:
        return next(s for s in inner if "arn" in s.model_fields)
    if "type" not in item:
        return next(s for s in inner if "code" in s.model_fields)
    return next(s for s in inner if s.model_fields["type"].annotation.__args__[0] == item["type"])


def scheme_class(value: object) -> str:
    scheme = value.get("scheme", "") if isinstance(value, dict) else ""
    return next((s.__name__ for s in all_sections() if scheme_of(s) == scheme), "")


def scheme_of(section: type[Section]) -> str:
    field = section.model_fields.get("scheme")
    return field.annotation.__args__[0] if field is not None and hasattr(field.annotation, "__args__") else "?"


TABLES = list(walk(Settings, tomllib.loads(TEXT)))


def test_loads():
    loaded = load(CONFIG / "full.toml", ENVIRON)

    assert loaded.warnings == ()
    assert {source.scheme.scheme for source in loaded.settings.webhooks.values()} == set(SCHEMES)


def test_no_setting_is_missing():
    written = {(section, key) for _, section, data in TABLES for key in data}
    commented = set(re.findall(r"^# (\w+) = ", TEXT, re.MULTILINE))
    missing = {
        f"{section.__name__}.{key}"
        for section in all_sections() - {TlsFiles}
        for key in section.model_fields
        if (section, key) not in written
        and key not in commented
        and (section, key) not in {(Anyone, "secrets"), (Sns, "secrets")}
    }

    assert missing == set()
    assert all(f"{key} = " in TEXT for key in TlsFiles.model_fields)


def test_values_are_the_defaults():
    shown = load(CONFIG / "full.toml", ENVIRON).settings
    wrong = []
    for loc, section, data in TABLES:
        current = shown
        for part in loc:
            current = current[part] if isinstance(current, dict) else getattr(current, part)
        for key in sorted(data.keys() & section.model_fields.keys()):
            field = section.model_fields[key]
            if field.default in (PydanticUndefined, None) or field.default_factory or (*loc, key) in NOT_DEFAULT:
                continue
            if getattr(current, key) != field.default:
                wrong.append((*loc, key))

    assert wrong == []


def test_ranges_and_defaults_are_in_the_comments():
    lines, places = TEXT.splitlines(), key_lines(TEXT)
    wrong = []
    for loc, section, data in TABLES:
        if loc[:1] == ("sources",) and loc[:2] not in SOURCES and loc != ("sources", "other", "verify"):
            continue  # the same settings again, in the examples of the schemes
        if loc == ("connections", "secured"):
            continue
        for key in sorted(data.keys() & section.model_fields.keys()):
            field = section.model_fields[key]
            comment = comment_at(lines, places[(*loc, key)])
            bounds = {
                name: getattr(note, name)
                for note in field.metadata
                for name in ("ge", "le", "gt")
                if hasattr(note, name)
            }
            if "ge" in bounds and f"{bounds['ge']:g}..{bounds['le']:.15g}" not in comment:
                wrong.append((*loc, key, bounds))
            if "gt" in bounds and f"above {bounds['gt']} up to {bounds['le']}" not in comment:
                wrong.append((*loc, key, bounds))
            if (
                field.is_required()
                and section.__name__ != "Settings"
                and key not in ("scheme", "secrets")
                and loc != ("mappings", "telemetry")
                and "needed" not in comment
            ):
                wrong.append((*loc, key, "needed"))
            default = field.default
            if isinstance(default, bool):
                if f"default {str(default).lower()}" not in comment:
                    wrong.append((*loc, key, default))
            elif isinstance(default, int | float) and f"default {default:.15g}" not in comment:
                wrong.append((*loc, key, default))
            if isinstance(default, str) and default and f'default "{default}"' not in comment:
                wrong.append((*loc, key, default))

    assert wrong == []


def comment_at(lines: list[str], line: int) -> str:
    """Return the comment of a line and of the comment-only lines that go on with it."""
    found = [lines[line - 1].partition("#")[2]]
    for following in lines[line:]:
        if not following.startswith(" " * 30):
            break
        found.append(following.partition("#")[2])
    return " ".join(found)


def test_quickstart_loads_and_greets():
    loaded = load(CONFIG / "quickstart.toml", {})

    assert loaded.warnings == ()
    assert loaded.settings.functions["hello"].event_invoke.retry_delays_s == (1, 2)
    assert [source.path for source in loaded.settings.sources.values()] == ["/hooks/hello", "/hello"]


def test_schema_is_fresh():
    """`bridge config schema > config/bridge.schema.json` makes it so."""
    assert json.loads((CONFIG / "bridge.schema.json").read_text()) == schema()


def test_schema_knows_every_key():
    text = json.dumps(schema())

    assert [key for section in all_sections() for key in section.model_fields if f'"{key}"' not in text] == []


# --- whatever is done to the file, it is refused in lines or loaded ---

PIECES = ["[", "]", "{", "}", "=", '"', "'", "\n", ",", ".", "#", "\\", "\x00", "\t", "\r", "é", "\ud7ff", "nan", "true", "-1", "1e400",
          "99999999999999999999999999", "1979-05-27", '"""', "[[", "${", "${GONE}", "off", "[sources.hello]", "0.5", '""', "{}"]  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def check(text: str, folder: Path) -> None:
    path = folder / "spoiled.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        load(path, ENVIRON)
    except ConfigErrors as error:
        assert error.mistakes
        for mistake in error.mistakes:
            assert mistake.startswith(f"{path}:")
            assert "\n" not in mistake
            assert mistake.isprintable()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(TEXT)), cut=st.integers(0, 40), piece=st.sampled_from(PIECES) | st.text(max_size=6))
@pytest.mark.slow
def test_spoiled_text_never_gives_a_traceback(tmp_path, at, cut, piece):
    (tmp_path / "functions").is_symlink() or (tmp_path / "functions").symlink_to(CONFIG / "functions")

    check(TEXT[:at] + piece + TEXT[at + cut :], tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), value=VALUES)
@pytest.mark.slow
def test_any_value_at_any_key_never_gives_a_traceback(tmp_path, seed, value):
    """The value stands in TOML where a key, a table or an array item of the file stood."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    data = tomllib.loads(TEXT)
    loc = random.Random(seed).choice([loc for loc in key_lines(TEXT) if loc])
    current = data
    for part in loc[:-1]:
        current = current[part]
    if value is None:
        del current[loc[-1]]
    else:
        current[loc[-1]] = value
    try:
        text = tomlkit.dumps(without_none(data))
        tomllib.loads(text)
    except (TOMLKitError, ValueError):
        return  # tomlkit cannot write it, so nobody can

    check(text, tmp_path)


def without_none(value: object) -> object:
    if isinstance(value, dict):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    return [without_none(item) for item in value if item is not None] if isinstance(value, list) else value
