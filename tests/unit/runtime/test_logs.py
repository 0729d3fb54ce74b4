"""Logs keep what functions wrote, within a limit, and show it without letting it forge or drive anything."""

import asyncio
import os

import pytest

from bridge.runtime.logs import FunctionLogs, TimeText, shown, stream_name
from tests.harness import wait_until

AT = 1_767_225_600.5
STREAM = "2026/01/01/[$LATEST]" + "0" * 32


@pytest.fixture
def logs(tmp_path):
    logs = FunctionLogs(tmp_path, max_bytes_per_function=64 * 1024)
    yield logs
    logs.close()


async def read(logs, function="f", lines=100):
    return [line async for line in logs.tail(function, lines=lines, follow=False)]


def test_stream_names_are_awss():
    assert stream_name("$LATEST", at=AT, token="0" * 32) == STREAM


def test_time_text():
    text = TimeText()

    assert text(AT) == b"2026-01-01T00:00:00.500Z "
    assert text(AT + 0.001) == b"2026-01-01T00:00:00.501Z "
    assert text(AT - 86400) == b"2025-12-31T00:00:00.500Z "


async def test_each_line_follows_its_time(logs, tmp_path):
    logs.write("f", STREAM, b"one\ntwo\n", at=AT)
    logs.flush()

    path = tmp_path / "f" / f"{STREAM.replace('/', '_')}.log"
    assert path.read_bytes() == b"2026-01-01T00:00:00.500Z one\n2026-01-01T00:00:00.500Z two\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


async def test_tail_merges_streams_by_time(logs):
    logs.write("f", STREAM, b"first\n", at=AT)
    logs.write("f", STREAM, b"third\n", at=AT + 2)
    logs.write("f", "other", b"second\n", at=AT + 1)
    logs.write("g", STREAM, b"another function\n", at=AT)

    assert await read(logs) == [(AT, STREAM, "first"), (AT + 1, "other", "second"), (AT + 2, STREAM, "third")]
    assert [text for _, _, text in await read(logs, lines=1)] == ["third"]
    assert await read(logs, lines=0) == []


async def test_no_logs_yet(logs):
    assert await read(logs, "nobody") == []


async def test_control_characters_are_shown_escaped(logs):
    logs.write("f", STREAM, b"\x1b[2J\x07\tok \xff \xe2\x80\xae\n", at=AT)

    assert await read(logs) == [(AT, STREAM, "\\x1b[2J\\x07\tok \\xff \\u202e")]
    assert shown("a\rb\nc\x00") == "a\\rb\\nc\\x00"


async def test_an_error_record_is_shown_line_by_line(logs):
    logs.write("f", STREAM, "[ERROR] E: x\rTraceback\r\u00a0\u00a0File\n".encode(), at=AT)
    logs.write("f", STREAM, b"progress\rSTART RequestId: forged\n", at=AT)
    logs.write("f", STREAM, b"2026-01-02T03:04:05.678Z\tid\tINFO\tone\rtwo\n", at=AT)

    assert [text for _, _, text in await read(logs)] == [
        "[ERROR] E: x",
        "Traceback",
        "\u00a0\u00a0File",
        "progress\\rSTART RequestId: forged",
        "2026-01-02T03:04:05.678Z\tid\tINFO\tone",
        "two",
    ]


async def test_a_function_keeps_a_bounded_amount(logs, tmp_path):
    for number in range(400):
        logs.write("f", STREAM, b"x" * 1000 + b"\n", at=AT + number)
        logs.flush()

    files = list((tmp_path / "f").iterdir())
    assert len(files) > 1
    assert sum(file.stat().st_size for file in files) <= 64 * 1024
    assert (await read(logs))[-1][0] == AT + 399


async def test_a_function_keeps_a_bounded_number_of_streams(logs, tmp_path):
    for number in range(230):
        logs.write("f", f"stream{number}", b"x\n", at=AT)
        logs.flush()
        logs.end_stream("f", f"stream{number}")

    assert len(list((tmp_path / "f").iterdir())) <= 201


async def test_open_files_are_bounded(logs):
    for number in range(100):
        logs.write("f", f"stream{number}", b"x\n", at=AT)
    logs.flush()

    assert len(logs._files) <= 64
    logs.write("f", "stream0", b"again\n", at=AT + 1)
    assert (await read(logs))[-1] == (AT + 1, "stream0", "again")


async def test_follow_yields_new_lines(logs):
    logs.write("f", STREAM, b"old\n", at=AT)
    seen = []

    async def follow():
        async for line in logs.tail("f", lines=1, follow=True):
            seen.append(line[2])  # noqa: PERF401 - looked at meanwhile

    task = asyncio.create_task(follow())
    await wait_until(lambda: seen == ["old"], description="the old line")
    logs.write("f", STREAM, b"new\n", at=AT + 1)
    logs.write("f", "later", b"newer\n", at=AT + 2)
    await wait_until(lambda: seen == ["old", "new", "newer"], description="the new lines")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert logs._followers == {}


async def test_follow_survives_a_rotation(logs):
    seen = []

    async def follow():
        async for line in logs.tail("f", lines=0, follow=True):
            seen.append(int(line[2].split()[0]))  # noqa: PERF401

    task = asyncio.create_task(follow())
    await wait_until(lambda: logs._followers, description="it follows")
    for number in range(40):
        logs.write("f", STREAM, b"%d %s\n" % (number, b"x" * 1000), at=AT + number)
        logs.flush()
        if number % 10 == 9:
            await wait_until(lambda n=number: seen and seen[-1] == n, description="it followed")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert seen == list(range(40))


async def test_a_disk_that_takes_nothing_loses_logs_only(logs, tmp_path):
    (tmp_path / "f").write_text("a file where the folder should be")

    logs.write("f", STREAM, b"lost\n", at=AT)
    logs.flush()

    logs.write("g", STREAM, b"kept\n", at=AT)
    assert [text for _, _, text in await read(logs, "g")] == ["kept"]


async def test_writes_reach_the_file_by_themselves(logs, tmp_path):
    logs.write("f", STREAM, b"x\n", at=AT)

    await wait_until(lambda: list((tmp_path / "f").glob("*.log")), description="the file")


async def test_many_lines_at_once_do_not_pile_up(logs):
    for _ in range(2000):
        logs.write("f", STREAM, b"x" * 1000 + b"\n", at=AT)

    assert logs.stream("f", STREAM).size < 300 * 1024
    assert os.listdir(logs._folder / "f")


async def test_a_stream_by_the_beginning_of_its_name(tmp_path):
    logs = FunctionLogs(tmp_path / "logs")
    logs.write("f", "2026/01/02/[1]aa", b"one\n", at=1.0)
    logs.write("f", "2026/01/02/[2]bb", b"two\n", at=2.0)
    found = [line[1:] async for line in logs.tail("f", lines=1, follow=False, stream="2026/01/02/[1]")]
    assert found == [("2026/01/02/[1]aa", "one")]
    assert [line[2] async for line in logs.tail("f", lines=9, follow=False)] == ["one", "two"]
    logs.close()


async def test_a_function_whose_role_has_no_rights_to_logs_gets_no_stream(logs, tmp_path):
    asked, sunk = [], []

    class Sink:
        def write(self, *arguments):
            sunk.append(arguments)

    def may_write(*place):
        asked.append(place)
        return place[0] != "silent"

    logs.may_write, logs.sink = may_write, Sink()
    logs.stream("silent", STREAM, group="/own").write(b"secret\n", AT)
    logs.write("silent", STREAM, b"secret\n", at=AT)
    logs.end_stream("silent", STREAM)
    logs.flush()

    assert asked[0] == ("silent", STREAM, "/own")
    assert await read(logs, "silent") == []
    assert not (tmp_path / "silent").exists()
    assert sunk == []
