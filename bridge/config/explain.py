"""Says in our words what pydantic found: the key, what is wrong, what to write; never a value that may be secret."""

import re
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import Tag
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from bridge.config.connections import CONNECTION_TYPES
from bridge.config.functions import FunctionSettings
from bridge.config.mappings import unknown_key
from bridge.config.mistakes import Loc, listing, near
from bridge.config.section import Section
from bridge.config.settings import Settings
from bridge.config.sources import SOURCE_TYPES, TYPE_TEXT
from bridge.config.verify import SCHEMES

_MISSING: Final = {
    "verify": 'missing; name a scheme, such as { scheme = "github", secrets = [{ env = "NAME" }] }, '
    'or write verify = "none" to let anyone post',
    "sources.type": f"missing; write type = {TYPE_TEXT}",
    "connections.type": 'missing; write type = "kafka" or "aws"',
}
_KINDS: Final = (
    (bool, "a boolean"), (int, "a whole number"), (float, "a number with a point"), (str, "a string"),
    (list, "an array"), (dict, "a table"),
)  # fmt: skip
_WANTED: Final = {
    "int_type": "a whole number", "float_type": "a number", "string_type": "a string", "bool_type": "true or false",
    "tuple_type": "an array", "dict_type": "a table", "model_type": "a table", "model_attributes_type": "a table",
}  # fmt: skip
_BOUNDS: Final = {
    "greater_than_equal": ("ge", "at least"), "less_than_equal": ("le", "at most"),
    "greater_than": ("gt", "more than"), "less_than": ("lt", "less than"),
}  # fmt: skip
_UNITS: Final = {"s": "seconds", "mb": "MB", "gb": "GB", "days": "days", "bytes": "bytes"}
_NUMBER_SHOWN_MAX: Final = 10**12
_NAME_RULE: Final = "a name is 1..64 of a-z A-Z 0-9 _ -"


def explain(error: ErrorDetails, data: Mapping[str, Any]) -> tuple[Loc, str]:
    """Return the place of one of pydantic's errors in `data`, and a line that tells it."""
    loc = _place(error, data)
    kind = error["type"]
    context = error.get("ctx", {})
    if kind == "bridge" and "text" in context:
        return loc, str(context["text"])
    if kind == "missing":
        key = str(loc[-1]) if loc else ""
        known = _MISSING.get(key) or _MISSING.get(f"{loc[0]}.{key}" if loc else "")
        return loc, known or f"missing: {_description(error['loc'])}"
    if kind == "extra_forbidden":
        if loc[0] == "mappings" and len(loc) == 3 and (said := unknown_key(str(loc[-1]))):
            return loc, said
        if loc[0] == "functions" and "remote function" in error["loc"] and loc[-1] in FunctionSettings.model_fields:
            return loc, "not together with arn: that function runs elsewhere, with what is configured there"
        return loc, "unknown key" + near(loc[-1], _keys_at(error["loc"][:-1]))
    is_role = kind == "string_pattern_mismatch" and loc[:1] == ("roles",) and len(loc) == 2
    if is_role or (error["loc"] and error["loc"][-1] == "[key]"):
        return loc, _NAME_RULE
    if kind == "scheme":
        given = error["input"].get("scheme") if isinstance(error["input"], dict) else None
        return loc, error["msg"] + near(given, SCHEMES)
    if kind in ("connection", "source"):
        words = CONNECTION_TYPES if kind == "connection" else SOURCE_TYPES
        return (*loc, "type"), error["msg"] + near(error["input"].get("type"), words)
    return loc, _about_value(error, key=_last_key(loc))


def _about_value(error: ErrorDetails, *, key: str) -> str:
    kind, given, context = error["type"], error["input"], error.get("ctx", {})
    if kind in _WANTED:
        unit = _UNITS.get(key.rpartition("_")[2], "") if kind in ("int_type", "float_type") else ""
        return f"must be {_WANTED[kind]}{' of ' + unit if unit else ''}, not {_kind_of(given)}"
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        shown = isinstance(given, int | float) and abs(given) < _NUMBER_SHOWN_MAX
        return f"must be {words} {context[name]:.15g}" + (f", not {given}" if shown else "")
    if kind in ("literal_error", "enum"):
        allowed = re.findall(r"'([^']*)'", str(context["expected"]))
        choices = listing(f'"{word}"' for word in allowed) if allowed else context["expected"]  # numbers
        return f"must be {choices}" + (near(given, allowed) if len(allowed) > 1 else "")
    if kind == "finite_number":
        return "must be a finite number"
    if kind == "string_too_long":
        return f"must be at most {context['max_length']} characters"
    if kind == "too_long":
        return f"must have at most {context['max_length']} items" if context["max_length"] else "must be left out"
    if kind == "too_short":
        return f"must have at least {context['min_length']} item{'s' if context['min_length'] > 1 else ''}"
    if kind == "string_pattern_mismatch":
        return f"not a valid value: {_description(error['loc'])}"
    return error["msg"][:1].lower() + error["msg"][1:]


def _kind_of(value: Any) -> str:
    return next((words for kind, words in _KINDS if isinstance(value, kind)), "a date or time")


def _last_key(loc: Loc) -> str:
    return next((part for part in reversed(loc) if isinstance(part, str)), "")


def _place(error: ErrorDetails, data: Mapping[str, Any]) -> Loc:
    """Return the error's place without what pydantic adds to it: tags of unions, marks of keys."""
    loc: Loc = ()
    current: Any = data
    last = len(error["loc"]) - 1
    for index, part in enumerate(error["loc"]):
        if isinstance(current, dict) and part in current:
            current = current[part]
            loc = (*loc, part)
        elif isinstance(current, list | tuple) and isinstance(part, int):
            current = current[part] if part < len(current) else None
            loc = (*loc, part)
        elif index == last and error["type"] == "missing":
            loc = (*loc, part)
    return loc


# --- what the settings say about a place ---


def _leaves(annotation: Any, tag: str | None = None) -> Iterator[tuple[str | None, Any]]:
    """Yield the members of unions, with their tags, without their annotations."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *notes = get_args(annotation)
        tag = next((note.tag for note in notes if isinstance(note, Tag)), tag)
        yield from _leaves(inner, tag)
    elif origin in (Union, UnionType):
        for member in get_args(annotation):
            yield from _leaves(member, tag)
    else:
        yield tag, annotation


def _walk(loc: Loc) -> tuple[list[Any], FieldInfo | None]:
    """Return the types that may stand at pydantic's `loc`, and the field that was last passed."""
    current: list[Any] = [Settings]
    field: FieldInfo | None = None
    for part in loc:
        following: list[Any] = []
        for tag, leaf in (pair for annotation in current for pair in _leaves(annotation)):
            if tag is not None and tag == part:
                following.append(leaf)
            elif _is_section(leaf) and part in leaf.model_fields:
                field = leaf.model_fields[part]
                following.append(field.annotation)
            elif _is_section(leaf) and leaf.model_config.get("extra") == "allow":
                following.append(get_args(leaf.__annotations__["__pydantic_extra__"])[1])
            elif get_origin(leaf) is dict:
                following.append(get_args(leaf)[1])
            elif get_origin(leaf) is tuple:
                following.append(get_args(leaf)[0])
        current = following
    return [leaf for annotation in current for _, leaf in _leaves(annotation)], field


def _is_section(leaf: Any) -> bool:
    return isinstance(leaf, type) and issubclass(leaf, Section)


def _keys_at(loc: Loc) -> list[str]:
    return [key for leaf in _walk(loc)[0] if _is_section(leaf) for key in leaf.model_fields]


def _description(loc: Loc) -> str:
    field = _walk(loc)[1]
    text = (field.description if field is not None else None) or "see config/full.toml"
    return text.rstrip(".")
