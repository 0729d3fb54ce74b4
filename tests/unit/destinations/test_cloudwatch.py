"""Log events reach CloudWatch Logs in batches it takes; trouble delays them, and nothing waits without a limit."""

import asyncio

import pytest
from botocore.exceptions import ClientError
from structlog.testing import capture_logs

from bridge.core import limits
from bridge.core.errors import ConfigError
from bridge.destinations.cloudwatch import BATCH_MAX_BYTES, BATCH_MAX_EVENTS, EVENT_MAX_BYTES, CloudWatchLogs, Writer
from bridge.testing.clock import ManualClock
from bridge.util import telemetry
from tests.harness import wait_until

AT = 1_767_225_600.5
GROUP = "/aws/lambda/f"
STREAM = "2026/01/01/[$LATEST]aa"


def refusal(code: str, status: int = 400) -> ClientError:
    answer = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "PutLogEvents")


class Service:
    """What CloudWatch Logs keeps; `troubles` are raised first, one a call to PutLogEvents."""

    def __init__(self) -> None:
        self.streams: dict[str, dict[str, list[tuple[int, str]]]] = {}
        self.batches: list[int] = []
        self.troubles: list[Exception] = []
        self.calls = 0
        self.rejected: dict[str, int] = {}
        self.gate = asyncio.Event()
        self.gate.set()

    async def create_log_group(self, *, logGroupName):  # noqa: N803 - the service's own names
        if logGroupName in self.streams:
            raise refusal("ResourceAlreadyExistsException")
        self.streams[logGroupName] = {}

    async def create_log_stream(self, *, logGroupName, logStreamName):  # noqa: N803
        if logGroupName not in self.streams:
            raise refusal("ResourceNotFoundException")
        if logStreamName in self.streams[logGroupName]:
            raise refusal("ResourceAlreadyExistsException")
        self.streams[logGroupName][logStreamName] = []

    async def put_log_events(self, *, logGroupName, logStreamName, logEvents):  # noqa: N803
        self.calls += 1
        await self.gate.wait()
        if self.troubles:
            raise self.troubles.pop(0)
        if logStreamName not in self.streams.get(logGroupName, ()):
            raise refusal("ResourceNotFoundException")
        self.batches.append(len(logEvents))
        assert sum(len(event["message"].encode()) + 26 for event in logEvents) <= BATCH_MAX_BYTES
        times = [event["timestamp"] for event in logEvents]
        assert times == sorted(times)
        assert times[-1] - times[0] < 24 * 3_600_000
        self.streams[logGroupName][logStreamName] += [(event["timestamp"], event["message"]) for event in logEvents]
        return {"rejectedLogEventsInfo": self.rejected} if self.rejected else {}

    def messages(self, group: str = GROUP, stream: str = STREAM) -> list[str]:
        return [message for _, message in self.streams.get(group, {}).get(stream, [])]


class Shipped:
    """A sink over a service, its task running in virtual time."""

    def __init__(self) -> None:
        self.clock = ManualClock(time=AT)
        self.service = Service()
        self.sink = CloudWatchLogs(client=self._client, clock=self.clock)
        self.refused: ConfigError | None = None
        self.asked: list[Writer] = []
        self.denied: set[str] = set()

    async def _client(self, writer):
        self.asked.append(writer)
        if writer.role in self.denied:
            raise ConfigError("not assumed")
        if self.refused is not None:
            raise self.refused
        return self.service

    def put(self, data: bytes, *, at: float = AT, group: str = GROUP, stream: str = STREAM) -> None:
        self.sink.put(group, stream, [(at, data)])

    async def until(self, predicate, description: str, step_s: float = 0.25) -> None:
        """Let virtual time pass until something is so."""

        async def passed() -> bool:
            await self.clock.advance(step_s)
            return predicate()

        await wait_until(passed, description=description)


@pytest.fixture
async def shipped():
    shipped = Shipped()
    task = asyncio.create_task(shipped.sink.run())
    yield shipped
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    shipped.service.gate.set()
    await shipped.sink.close(deadline_s=30)


def counted(outcome: str) -> float:
    return telemetry.CLOUDWATCH_EVENTS.labels(outcome=outcome)._value.get()


async def test_lines_become_events_of_a_stream_that_is_made(shipped):
    before = counted("sent")
    shipped.put(b"one\n\n[ERROR] X: y\rTraceback\r\xc2\xa0at\n")
    shipped.put(b"caf\xc3\xa9 \xff\n", at=AT + 1)

    await shipped.until(lambda: len(shipped.service.messages()) == 4, "all events")
    assert shipped.service.streams[GROUP][STREAM] == [
        (int(AT * 1000), "one\n"),
        (int(AT * 1000), "\n"),
        (int(AT * 1000), "[ERROR] X: y\nTraceback\n\xa0at\n"),
        (int(AT * 1000) + 1000, "caf\xe9 \\xff\n"),
    ]
    assert counted("sent") - before == 4
    assert shipped.service.batches == [4]
    assert shipped.sink.waiting == 0


async def test_a_batch_keeps_within_all_limits(shipped):
    shipped.put(b"x\n" * (BATCH_MAX_EVENTS + 5))
    shipped.put(b"y" * 600_000 + b"\n", at=AT + 1)
    shipped.put(b"z" * 600_000 + b"\n", at=AT + 2)
    shipped.put(b"next day\n", at=AT + 90_000)
    shipped.put(b"the clock went back\n", at=AT)

    await shipped.until(lambda: shipped.sink.waiting == 0, "all is sent")
    messages = shipped.service.messages()
    assert shipped.service.batches[0] == BATCH_MAX_EVENTS
    assert all(len(message.encode()) <= EVENT_MAX_BYTES for message in messages)
    assert messages[BATCH_MAX_EVENTS + 5 :][-2:] == ["next day\n", "the clock went back\n"]
    assert "".join(messages).count("y") == 600_000 + messages.count("next day\n")
    times = [at for at, _ in shipped.service.streams[GROUP][STREAM]]
    assert times == sorted(times)


@pytest.mark.parametrize(
    "trouble",
    [
        refusal("ThrottlingException"), refusal("ServiceUnavailableException", 503), refusal("AccessDeniedException"),
        TimeoutError(), refusal("OperationAbortedException"),
    ],
    ids=["throttle", "fault", "denied", "silence", "busy"],
)  # fmt: skip
async def test_trouble_is_waited_out_and_nothing_is_lost(shipped, trouble):
    shipped.service.troubles = [trouble] * 4
    shipped.put(b"one\n")
    began = shipped.clock.monotonic()

    await shipped.until(lambda: shipped.service.calls == 4, "four tries")
    shipped.put(b"two\n", at=AT + 1)
    assert [line.split(" for ")[1] for line in shipped.sink.troubles(after_s=5)] == [GROUP]
    ok, said = shipped.sink.fact()
    assert (ok, "bytes of log events wait; /aws/lambda/f: " in said) == (False, True)
    await shipped.until(lambda: len(shipped.service.messages()) == 2, "all events")

    assert shipped.service.messages() == ["one\n", "two\n"]
    assert shipped.clock.monotonic() - began >= 1 + 2 + 4 + 8
    assert shipped.sink.troubles(after_s=0) == []
    assert shipped.sink.fact() == (True, "0 bytes of log events wait")


async def test_a_group_in_trouble_holds_up_no_other_and_leaves_it_room(shipped):
    shipped.service.streams["/bad"] = {STREAM: []}
    shipped.service.troubles = [refusal("AccessDeniedException")]
    shipped.put(b"a\n", group="/bad")
    await shipped.until(lambda: shipped.service.calls == 1, "the try that fails")
    dropped = counted("full")
    for _ in range(100):
        shipped.put(b"b" * 99_999 + b"\n", group="/bad")
    assert limits.CLOUDWATCH_GROUP_MAX_BYTES * 0.9 < shipped.sink.waiting <= limits.CLOUDWATCH_GROUP_MAX_BYTES
    assert counted("full") - dropped > 50
    shipped.put(b"c\n")

    await shipped.until(lambda: shipped.service.messages() == ["c\n"], "the other group's event", 0.05)


async def test_what_is_dropped_is_told_once_a_minute(shipped):
    shipped.service.gate.clear()
    with capture_logs() as logs:
        for _ in range(500):
            shipped.put(b"b" * 99_999 + b"\n")
        told = [entry["events"] for entry in logs if entry["event"] == "log_events_dropped"]
        assert told == [1]
        shipped.service.gate.set()
        await shipped.until(lambda: shipped.sink.waiting == 0, "what was kept is sent")
        for _ in range(5):
            shipped.put(b"more\n")
            await shipped.until(lambda: shipped.sink.waiting == 0, "sent", 15)
    told = [entry["events"] for entry in logs if entry["event"] == "log_events_dropped"]
    assert len(told) == 2
    assert sum(told) == 500 - shipped.service.messages().count("b" * 99_999 + "\n")


async def test_a_batch_that_is_refused_does_not_stay(shipped):
    before = counted("refused")
    shipped.service.troubles = [refusal("InvalidParameterException")]
    shipped.put(b"one\n")
    await shipped.until(lambda: counted("refused") - before == 1, "the refusal")
    shipped.put(b"two\n")

    await shipped.until(lambda: shipped.service.messages() == ["two\n"], "the next one")


async def test_events_that_the_service_left_out_are_counted(shipped):
    before = counted("refused")
    shipped.service.rejected = {"tooOldLogEventEndIndex": 1, "tooNewLogEventStartIndex": 2}
    shipped.put(b"old\nright\nnew\n")

    await shipped.until(lambda: counted("refused") - before == 2, "two of three")


async def test_a_stream_that_somebody_deletes_is_made_anew(shipped):
    shipped.put(b"one\n")
    await shipped.until(lambda: shipped.service.messages() == ["one\n"], "the first")
    shipped.service.streams.clear()
    shipped.put(b"two\n")

    await shipped.until(lambda: shipped.service.messages() == ["two\n"], "the second")


async def test_a_connection_that_is_missing_is_trouble(shipped):
    shipped.refused = ConfigError("there is no [connections.x]")
    shipped.put(b"one\n")
    await shipped.until(lambda: not shipped.sink.fact()[0], "trouble")
    shipped.refused = None

    await shipped.until(lambda: shipped.service.messages() == ["one\n"], "the event")


async def test_close_sends_what_waits():
    shipped = Shipped()
    for number in range(3):
        shipped.put(b"last\n", stream=f"{STREAM}{number}")
    await shipped.sink.close(deadline_s=30)

    assert [shipped.service.messages(stream=f"{STREAM}{number}") for number in range(3)] == [["last\n"]] * 3


async def test_a_stop_lets_a_call_end_whose_answer_is_on_its_way():
    shipped = Shipped()
    shipped.service.gate.clear()
    shipped.put(b"one\n")
    task = asyncio.create_task(shipped.sink.run())
    await shipped.until(lambda: shipped.service.calls == 1, "the call")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    asyncio.get_running_loop().call_soon(shipped.service.gate.set)
    await shipped.sink.close(deadline_s=30)

    assert (shipped.service.messages(), shipped.service.calls) == (["one\n"], 1)


async def test_close_gives_up_on_trouble_and_on_silence():
    shipped, before = Shipped(), counted("stopped")
    shipped.service.troubles = [refusal("ThrottlingException")] * 9
    shipped.put(b"a\nb\n")
    await shipped.sink.close(deadline_s=30)
    assert (shipped.service.calls, counted("stopped") - before) == (1, 2)

    shipped.service.gate.clear()
    shipped.put(b"c\n")
    await shipped.sink.close(deadline_s=0.01)
    assert counted("stopped") - before == 3
    assert shipped.sink.waiting == 0


async def test_each_line_is_sent_as_its_writer_and_one_that_may_not_holds_no_other_up(shipped):
    allowed, denied = Writer("arn:allowed", "f"), Writer("arn:denied", "g")
    shipped.denied.add("arn:denied")
    shipped.sink.put(GROUP, "s-f", [(AT, b"one\n")], writer=allowed)
    shipped.sink.put(GROUP, "s-g", [(AT, b"two\n")], writer=denied)
    await shipped.until(lambda: shipped.service.messages(stream="s-f") == ["one\n"], "the one is sent")
    assert set(shipped.asked) == {allowed, denied}
    assert shipped.sink.fact() == (False, f"{shipped.sink.waiting} bytes of log events wait; {GROUP}: not assumed")
    shipped.sink.put(GROUP, "s-f", [(AT, b"three\n")], writer=allowed)
    await shipped.until(lambda: shipped.service.messages(stream="s-f") == ["one\n", "three\n"], "and goes on")
    shipped.denied.clear()
    await shipped.until(lambda: shipped.service.messages(stream="s-g") == ["two\n"], "the other follows")
