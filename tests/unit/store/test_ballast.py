"""Ballast: held in good times, given up at once, taken back with room to spare."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bridge.store import ballast as ballast_module
from bridge.store.ballast import Ballast, free_bytes
from bridge.util import telemetry

SIZE = 256 * 1024


def store_full() -> float:
    value = telemetry.REGISTRY.get_sample_value("bridge_store_full_state")
    assert value is not None
    return value


@pytest.fixture
def ballast(tmp_path: Path) -> Ballast:
    return Ballast(tmp_path / "ballast", size_bytes=SIZE)


def test_it_holds_real_space(ballast: Ballast, tmp_path: Path) -> None:
    assert ballast.ensure() is True

    stat = (tmp_path / "ballast").stat()
    assert stat.st_size == SIZE
    assert stat.st_blocks * 512 >= SIZE
    assert stat.st_mode & 0o777 == 0o600


def test_release_gives_the_space_up_once(ballast: Ballast, tmp_path: Path) -> None:
    ballast.ensure()

    assert ballast.release() is True
    assert (tmp_path / "ballast").stat().st_blocks == 0
    assert ballast.release() is False
    assert ballast.is_held is False


def test_each_change_is_logged_once_and_shows_in_the_metric(ballast: Ballast) -> None:
    with capture_logs() as logs:
        for _ in range(3):
            ballast.ensure()
        for _ in range(3):
            ballast.release()
        assert store_full() == 1
        for _ in range(3):
            ballast.ensure()

    assert [log["event"] for log in logs] == ["ballast_restored", "ballast_released", "ballast_restored"]
    assert store_full() == 0


def test_it_is_not_taken_while_the_disk_has_no_room_to_spare(ballast: Ballast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ballast_module, "free_bytes", lambda path: 2 * SIZE - 1)

    assert ballast.ensure() is False
    assert ballast.is_held is False


def test_a_sparse_copy_is_no_ballast(ballast: Ballast, tmp_path: Path) -> None:
    with (tmp_path / "ballast").open("wb") as file:
        file.truncate(SIZE)

    assert ballast.is_held is False
    assert ballast.ensure() is True
    assert (tmp_path / "ballast").stat().st_blocks * 512 >= SIZE


@pytest.mark.parametrize("before", [SIZE // 2, SIZE * 2])
def test_another_size_is_taken_over_at_the_next_start(ballast: Ballast, tmp_path: Path, before: int) -> None:
    Ballast(tmp_path / "ballast", size_bytes=before).ensure()

    assert ballast.ensure() is True
    assert (tmp_path / "ballast").stat().st_size == SIZE


def test_none_is_asked_for(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path / "ballast", size_bytes=0)

    assert ballast.ensure() is True
    assert ballast.release() is False
    assert not (tmp_path / "ballast").exists()


def test_a_disk_that_refuses_is_no_reason_to_stop(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path / "ballast", size_bytes=1 << 62)

    assert ballast.ensure() is False


def test_free_bytes_is_what_may_be_written(tmp_path: Path) -> None:
    assert free_bytes(tmp_path) > 0
