"""The checker is checked before anything it says is believed."""

import pytest

from tests.crash import ledger

pytestmark = pytest.mark.crash


def test_the_ledger_sees_planted_losses_repeats_and_reversals() -> None:
    ledger.selftest()
