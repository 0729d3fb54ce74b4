"""The wall clock of one daemon, moved under its feet with libfaketime: of nothing else, and not its monotonic clock."""

from pathlib import Path

FAKETIME = "libfaketimeMT.so.1"


class FakeClock:
    """Give `environment` to the daemon; `step` sets its clock so many seconds from the machine's."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.step(0)
        found = next(Path("/usr/lib").glob(f"*/faketime/{FAKETIME}"), None)
        assert found is not None, "needs Debian's package faketime: requirements/apt.sh faketime:faketime"
        self.environment = {
            "LD_PRELOAD": str(found),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
        }

    def step(self, seconds: int) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}\n")
        fresh.rename(self._file)
