"""The state folder: one owner, refused when newer or foreign, a token made once."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.core.errors import StoreBusy, StoreCorrupt, StoreError
from bridge.store.folder import LAYOUT, StateFolder

HOLDER = """
import subprocess, sys, time
from pathlib import Path
from bridge.store.folder import StateFolder
folder = StateFolder(Path(sys.argv[1]))
folder.open()
worker = subprocess.Popen(["sleep", "60"], close_fds=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL)
print(worker.pid, file=sys.stderr, flush=True)
time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path):
    made = StateFolder(tmp_path / "state")
    yield made
    made.close()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_first_open_makes_the_tree_for_its_owner_alone(folder: StateFolder) -> None:
    folder.open()

    for made in (folder.path, folder.shared, folder.partition, folder.logs, folder.run):
        assert mode(made) == 0o700
    for made in (folder.lock_path, folder.token_path, folder.meta_path):
        assert mode(made) == 0o600
    assert json.loads(folder.meta_path.read_bytes())["layout"] == LAYOUT


def test_missing_parents_are_made(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "a" / "b" / "c")
    folder.open()
    folder.close()

    assert mode(tmp_path / "a" / "b" / "c") == 0o700


def test_the_token_is_made_once(folder: StateFolder) -> None:
    folder.open()
    token = folder.token
    assert len(token) >= 43
    folder.close()
    folder.open()

    assert folder.token == token


def test_a_token_of_an_operators_own_is_kept_and_closed_to_others(folder: StateFolder) -> None:
    folder.path.mkdir()
    folder.token_path.write_text("chosen\n")
    folder.token_path.chmod(0o644)
    folder.open()

    assert folder.token == "chosen"
    assert mode(folder.token_path) == 0o600


def test_an_empty_token_file_is_no_token(folder: StateFolder) -> None:
    folder.path.mkdir()
    folder.token_path.write_text("\n")
    folder.open()

    assert len(folder.token) >= 43


def test_an_open_folder_tightens_what_others_could_list(folder: StateFolder) -> None:
    folder.path.mkdir(mode=0o755)
    folder.open()

    assert mode(folder.path) == 0o700


# --- one owner ---------------------------------------------------------------------------------------


def test_a_second_owner_is_refused_by_name(folder: StateFolder) -> None:
    folder.open()
    with pytest.raises(StoreBusy) as refused:
        StateFolder(folder.path).open()

    text = str(refused.value)
    assert "\n" not in text
    assert f"in use by another daemon (pid {os.getpid()}, started 20" in text
    assert str(folder.path) in text
    assert "BRIDGE_STATE" in text


def test_a_refused_owner_changes_nothing(folder: StateFolder) -> None:
    folder.open()
    before = folder.lock_path.read_bytes()
    with pytest.raises(StoreBusy):
        StateFolder(folder.path).open()

    assert folder.lock_path.read_bytes() == before


def test_closing_gives_the_folder_back_and_twice_is_fine(folder: StateFolder) -> None:
    folder.open()
    folder.close()
    folder.close()
    other = StateFolder(folder.path)
    other.open()
    other.close()


def test_opening_twice_is_a_mistake(folder: StateFolder) -> None:
    folder.open()
    with pytest.raises(StoreError, match="already open in this process"):
        folder.open()
    with pytest.raises(StoreBusy):
        StateFolder(folder.path).open()


@pytest.mark.slow
def test_kill_9_gives_the_folder_back_though_a_worker_lives_on(folder: StateFolder) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, folder.path], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert holder.stderr is not None
    worker = int(holder.stderr.readline())
    try:
        with pytest.raises(StoreBusy, match=f"pid {holder.pid}"):
            folder.open()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        os.kill(worker, 0)  # it lives
        folder.open()
    finally:
        holder.kill()
        holder.wait()
        holder.stderr.close()
        os.kill(worker, signal.SIGKILL)


# --- what is refused ---------------------------------------------------------------------------------


def test_a_newer_layout_is_refused_and_untouched(folder: StateFolder) -> None:
    folder.path.mkdir(mode=0o700)
    folder.meta_path.write_text(json.dumps({"layout": LAYOUT + 1, "created_at": 1.0}))
    before = folder.meta_path.read_bytes()
    with pytest.raises(StoreError, match=rf"newer bridge \(layout {LAYOUT + 1}, this one knows {LAYOUT}\)") as refused:
        folder.open()

    assert "\n" not in str(refused.value)
    assert folder.meta_path.read_bytes() == before
    assert sorted(os.listdir(folder.path)) == ["lock", "meta.json"]
    assert folder.lock_path.read_bytes() == b""


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"layout": "x"}', '{"layout": null}', "\x00" * 30, "1" * 5000]
)
def test_a_damaged_meta_file_is_refused_in_one_line(folder: StateFolder, text: str) -> None:
    folder.path.mkdir(mode=0o700)
    folder.meta_path.write_text(text)
    with pytest.raises(StoreCorrupt, match=r"meta\.json is damaged") as refused:
        folder.open()

    assert "\n" not in str(refused.value)


def test_a_refusal_leaves_the_folder_to_others(folder: StateFolder) -> None:
    folder.path.mkdir(mode=0o700)
    folder.meta_path.write_text("{")
    with pytest.raises(StoreCorrupt):
        folder.open()
    folder.meta_path.unlink()
    folder.open()


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(StoreError, match="cannot be used: File exists"):
        StateFolder(tmp_path / "state").open()


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be used: Not a directory"):
        StateFolder(tmp_path / "file" / "state").open()


def test_a_damaged_token_is_refused(folder: StateFolder) -> None:
    folder.path.mkdir(mode=0o700)
    folder.token_path.write_bytes(b"\xff\xfe")
    with pytest.raises(StoreCorrupt, match="token is damaged"):
        folder.open()
