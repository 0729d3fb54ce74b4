"""Imports structlog without what it would load for a renderer that we do not use: a third of a daemon's imports."""

import sys
from typing import Any, Final

_UNUSED: Final = ("rich",)
"""structlog's console renderer would print tracebacks with it, if it can be imported; our own lines do not."""


def import_structlog() -> None:
    """Import structlog as if it stood alone; whatever was imported before stays as it is."""
    hidden = [name for name in _UNUSED if name not in sys.modules]
    modules: dict[str, Any] = sys.modules
    modules.update(dict.fromkeys(hidden))  # None: there is no such module
    try:
        import structlog  # noqa: F401 - for the import's own sake
    finally:
        for name in hidden:
            del sys.modules[name]
