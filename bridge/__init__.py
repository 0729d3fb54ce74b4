"""Event-source bridge daemon with replay."""

from typing import Final

__version__: Final = "0.1.0"
