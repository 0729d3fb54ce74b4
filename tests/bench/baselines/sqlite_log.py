"""Baseline: events in SQLite, WAL and synchronous=FULL, group commit in one writer thread; and a scan of them.

Prints {"per_s", "p50_us", "p99_us"} of appenders that wait until their event is durable, or with --scan N
{"per_s"} of reading N events back in order, 512 at a time.
"""

import argparse
import asyncio
import json
import queue
import sqlite3
import threading
import time
import uuid
from pathlib import Path

import uvloop

from tests.bench.callers import drive
from tests.bench.measure import scratch

SCHEMA = """
create table events (
    position integer primary key, id text not null, source text not null, received_at real not null,
    delivery_id text, payload blob not null
);
create index by_source on events (source, received_at);
create unique index by_delivery on events (source, delivery_id) where delivery_id is not null;
"""
INSERT = "insert into events (id, source, received_at, delivery_id, payload) values (?, ?, ?, ?, ?)"
GROUP_MAX = 512

Row = tuple[str, str, float, str | None, bytes]


def connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = full")
    return connection


class SqliteLog:
    """`await append(row)` returns once the row's transaction is on disk; the next group gathers meanwhile."""

    def __init__(self, path: Path) -> None:
        self._connection = connect(path)
        self._connection.executescript(SCHEMA)
        self._rows: queue.SimpleQueue[tuple[Row, asyncio.Future[bool]] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    async def append(self, row: Row) -> bool:
        """Return True when stored, False when its delivery id is known."""
        future: asyncio.Future[bool] = self._loop.create_future()
        self._rows.put((row, future))
        return await future

    def _write(self) -> None:
        while (first := self._rows.get()) is not None:
            group = [first]
            while len(group) < GROUP_MAX:
                try:
                    item = self._rows.get_nowait()
                except queue.Empty:
                    break
                if item is None:
                    self._rows.put(None)
                    break
                group.append(item)
            self._connection.execute("begin immediate")
            before = self._connection.total_changes
            results = []
            for row, future in group:
                self._connection.execute(INSERT.replace("insert", "insert or ignore", 1), row)
                results.append((future, self._connection.total_changes > before))
                before = self._connection.total_changes
            self._connection.execute("commit")
            self._loop.call_soon_threadsafe(self._finish, results)

    @staticmethod
    def _finish(results: list[tuple["asyncio.Future[bool]", bool]]) -> None:
        for future, stored in results:
            if not future.done():
                future.set_result(stored)

    def close(self) -> None:
        self._rows.put(None)
        self._thread.join()
        self._connection.close()


async def append(folder: Path, *, callers: int, seconds: float, payload: bytes) -> dict[str, float]:
    log = SqliteLog(folder / "events.db")
    try:
        return await drive(
            lambda _: log.append((str(uuid.uuid4()), "bench", time.time(), None, payload)),
            callers=callers,
            seconds=seconds,
        )
    finally:
        log.close()


def scan(folder: Path, *, count: int, payload: bytes) -> dict[str, float]:
    connection = connect(folder / "events.db")
    connection.executescript(SCHEMA)
    connection.execute("begin")
    connection.executemany(INSERT, ((f"{n:036d}", "bench", time.time(), None, payload) for n in range(count)))
    connection.execute("commit")
    rates = []
    for _ in range(3):
        began = time.perf_counter()
        seen = size = 0
        cursor = connection.execute(
            "select position, id, source, received_at, delivery_id, payload from events order by position"
        )
        while rows := cursor.fetchmany(512):
            seen += len(rows)
            size += sum(len(row[5]) for row in rows)
        assert (seen, size) == (count, count * len(payload))
        rates.append(count / (time.perf_counter() - began))
    connection.close()
    return {"per_s": max(rates)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--bytes", type=int, default=1024)
    parser.add_argument("--scan", type=int, default=0)
    options = parser.parse_args()
    payload = json.dumps({"data": "x" * (options.bytes - 12)}).encode()
    with scratch() as folder:
        if options.scan:
            result = scan(folder, count=options.scan, payload=payload)
        else:
            result = uvloop.run(append(folder, callers=options.callers, seconds=options.seconds, payload=payload))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
