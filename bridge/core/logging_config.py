"""How the log of a function is written: its format, what is left out of it, and its log group (API_LoggingConfig)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

TEXT: Final = "Text"
JSON: Final = "JSON"
APPLICATION_LEVELS: Final = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
SYSTEM_LEVELS: Final = ("DEBUG", "INFO", "WARN")
LEVEL_DEFAULT: Final = "INFO"
GROUP_PATTERN: Final = r"[.\-_/#A-Za-z0-9]+"
GROUP_MAX_CHARS: Final = 512
GROUP_PREFIX: Final = "/aws/lambda/"
"""Before a function's name: its log group, where none is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggingConfig:
    """A function's logging settings; levels count in JSON alone."""

    is_json: bool = False
    application_level: str = LEVEL_DEFAULT
    """One of `APPLICATION_LEVELS`: what the function writes below it is left out."""
    system_level: str = LEVEL_DEFAULT
    """One of `SYSTEM_LEVELS`: what the platform writes below it is left out."""
    group: str = ""
    """Empty: `/aws/lambda/` and the function's name."""

    @classmethod
    def of(cls, members: Mapping[str, Any], *, function: str) -> "LoggingConfig":
        """Return the value of a LoggingConfig by AWS's names."""
        group = members.get("LogGroup", "")
        return cls(
            is_json=members.get("LogFormat", TEXT) == JSON,
            application_level=members.get("ApplicationLogLevel", LEVEL_DEFAULT),
            system_level=members.get("SystemLogLevel", LEVEL_DEFAULT),
            group="" if group == GROUP_PREFIX + function else group,
        )

    def members(self, function: str) -> dict[str, str]:
        """Return it by AWS's names, as FunctionConfiguration shows it."""
        shown = {"LogFormat": JSON if self.is_json else TEXT, "LogGroup": self.group or GROUP_PREFIX + function}
        if self.is_json:
            shown |= {"ApplicationLogLevel": self.application_level, "SystemLogLevel": self.system_level}
        return shown


DEFAULT: Final = LoggingConfig()


def merged(before: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return a LoggingConfig by AWS's names with what a request changes: JSON has levels, text has none."""
    now = {**before, **asked}
    if now.get("LogFormat", TEXT) == JSON:
        return {"ApplicationLogLevel": LEVEL_DEFAULT, "SystemLogLevel": LEVEL_DEFAULT, **now}
    return {name: value for name, value in now.items() if name not in ("ApplicationLogLevel", "SystemLogLevel")}
