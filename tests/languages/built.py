"""The functions that requirements/languages.sh has built: where they are."""

import sys
from pathlib import Path

from tests.harness import ROOT
from tests.tools import lacking

HOW_TO_GET_IT = "requirements/languages.sh .venv/share/languages builds it"


def built(language: str) -> Path:
    """Return the folder of a function, its code; without it a test fails in CI, and is skipped elsewhere."""
    for prefix in (Path(sys.prefix), ROOT / ".venv"):
        folder = prefix / "share" / "languages" / language
        if (folder / "made-of").exists():
            return folder
    return lacking(f"no {language} function: {HOW_TO_GET_IT}")
