"""What `bridge run` says to the person who started it."""

from bridge.cli import banner
from bridge.daemon import Ready


def shown(capsys, state) -> str:
    banner.show(
        Ready(public="http://p", api="http://a", state=state, functions=("f",), routes=(), receivers=(), mappings=(), watched=False,
              took_s=0.1)
    )  # fmt: skip
    return capsys.readouterr().out


def test_a_folder_that_commands_find_by_themselves_needs_no_variable(capsys, tmp_path):
    usual, trial = shown(capsys, tmp_path / ".bridge"), shown(capsys, tmp_path / ".bridge-local")

    assert "BRIDGE_STATE" not in usual + trial
    assert "--state" not in usual
    assert "  state     .bridge-local   (not .bridge;" in trial
    assert "bridge --state .bridge-local" in trial


def test_another_folder_is_named_by_a_variable(capsys, tmp_path):
    assert f"export BRIDGE_STATE={tmp_path / 'there-local'}\n" in shown(capsys, tmp_path / "there-local")
