"""structlog without rich: what it saves, and that rich is there for whoever wants it."""

import subprocess
import sys


def test_structlog_comes_without_rich_and_rich_can_be_imported_later():
    code = (
        "import sys; from bridge.util.slim import import_structlog; import_structlog();"
        "print('structlog' in sys.modules, 'rich' in sys.modules); import rich.table; import_structlog();"
        "print('rich' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["True", "False", "True"]


def test_a_daemon_imports_neither_rich_nor_a_client():
    code = "import sys, bridge.cli.service, bridge.daemon; print([m for m in ('rich', 'attr', 'watchfiles') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
