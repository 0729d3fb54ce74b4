"""What the journal does with its folder at start: open what is sealed, check the newest segment, cut its torn tail."""

import os
from pathlib import Path

import structlog

from bridge.core.errors import StoreCorrupt, StoreError, StoreFull
from bridge.journal.ahead import Ahead
from bridge.journal.disk import NO_SPACE, Disk
from bridge.journal.files import Files, OpenFile
from bridge.journal.frames import place_seed
from bridge.journal.holds import Holds
from bridge.journal.layout import (
    FILE_HEADER_BYTES,
    Seal,
    file_header,
    index_path,
    read_header,
    read_mark,
    read_seal,
    recover,
    segment_path,
)
from bridge.journal.segment import Segment

log = structlog.get_logger("bridge.journal")


def recover_folder(folder: Path, *, files: Files, disk: Disk, ahead: Ahead, holds: Holds) -> tuple[Segment, ...]:
    """Return the segments of a folder, oldest first, the active one last; blocks.

    Raises:
        StoreCorrupt: damage below the synced end.
        StoreFull: no space for the first segment.
        StoreError: the disk does not answer.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        numbers = sorted(int(path.stem, 16) for path in folder.glob("*.seg"))
        for path in folder.glob("*.idx"):
            if int(path.stem, 16) not in numbers:
                path.unlink()
        segments = [_sealed(folder, number, files=files) for number in numbers[:-1]]
        newest_ms = max((segment.newest_ms for segment in segments), default=0)
        if numbers:
            active = _active(folder, numbers[-1], newest_ms=newest_ms, files=files, disk=disk, ahead=ahead)
        else:
            active = _fresh(folder, 1, newest_ms=0, files=files, disk=disk, ahead=ahead)
        holds.open()
    except OSError as error:
        kind = StoreFull if error.errno in NO_SPACE else StoreError
        raise kind(f"the journal in {folder} could not be opened: {error.strerror}") from error
    return (*segments, active)


def _sealed(folder: Path, number: int, *, files: Files) -> Segment:
    """Open a segment that takes no more, by its index where that can be trusted."""
    path = segment_path(folder, number)
    seal = read_seal(path)
    with path.open("rb") as file:
        header = read_header(file.read(FILE_HEADER_BYTES), name=path.name, number=number)
    if seal is not None and header is not None and (seal.number, seal.seed) == (number, header[0]):
        return Segment(folder, seal, files=files, live=None)
    found = recover(path, number=number)
    if found.torn or not found.has_header:
        raise StoreCorrupt(
            f"{path.name} is damaged at byte {found.seal.end}, and a later segment follows; run `bridge doctor`"
        )
    return Segment(folder, found.seal, files=files, live=(found.rows, files.open(path)))


def _active(folder: Path, number: int, *, newest_ms: int, files: Files, disk: Disk, ahead: Ahead) -> Segment:
    """Open the newest segment for appending: a torn tail is cut, and all that stays is synced first."""
    path = segment_path(folder, number)
    found = recover(path, number=number, floor=read_mark(folder, number))
    if not found.has_header:
        path.unlink()
        return _fresh(folder, number, newest_ms=newest_ms, files=files, disk=disk, ahead=ahead)
    file = OpenFile(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    if found.torn:
        # Cut, not skipped: an old tail must never look like the frames that will be written over it.
        log.warning("journal_tail_cut", segment=path.name, offset=found.seal.end)
        disk.truncate(file.fd, found.seal.end)
    index_path(path).unlink(missing_ok=True)
    ahead.reserve(file, found.seal.end)
    # What a killed daemon wrote and did not sync is a record now: durable before anybody sees it.
    disk.sync(file.fd)
    disk.sync_folder(folder)
    return Segment(folder, found.seal, files=files, live=(found.rows, file))


def _fresh(folder: Path, number: int, *, newest_ms: int, files: Files, disk: Disk, ahead: Ahead) -> Segment:
    salt = os.urandom(8)
    file = ahead.make(segment_path(folder, number))
    disk.write(file.fd, file_header(number, salt=salt, newest_ms=newest_ms), 0)
    disk.sync(file.fd)
    disk.sync_folder(folder)
    seal = Seal(number=number, seed=place_seed(number, salt), newest_ms=newest_ms)
    return Segment(folder, seal, files=files, live=(bytearray(), file))
