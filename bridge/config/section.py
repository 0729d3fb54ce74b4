"""The base of every section of the configuration file, and the checked kinds of keys and numbers."""

import os
from typing import Annotated, Any, Final, TypeAlias

# A plugin of pydantic's would be shown every value, secrets too; looking for plugins reads every installed package.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

from pydantic import BaseModel, ConfigDict, Field

LIST_MAX: Final = 1000
"""Items of any list in the file."""


class Section(BaseModel):
    """A table of the file: frozen, no unknown keys, no value is quietly turned into another type."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
        defer_build=True,  # only the whole is ever validated; building each part too would double the start-up
    )


def listed(description: str, *, default: Any = (), min_length: int = 0, max_length: int = LIST_MAX) -> Any:
    """Return a field for a TOML array that becomes a tuple (which strict mode alone would refuse)."""
    return Field(default, strict=False, min_length=min_length, max_length=max_length, description=description)


def subsection(description: str) -> Any:
    """Return a field for a table whose keys all have defaults.

    The default is an empty table, validated with the rest: an instance here would have every section build a
    validator of its own at import, which took a third of the start-up.
    """
    return Field(default_factory=dict, validate_default=True, description=description)


Name: TypeAlias = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
"""Names of functions, connections, sources and mappings (API_CreateFunction, FunctionName)."""
