"""Push sources that run by themselves: over reloads, in trouble, and at the end."""

import asyncio
from types import SimpleNamespace

import pytest

from bridge.core.errors import ConfigError
from bridge.core.push import Accepted, Given, NotAccepted
from bridge.daemon.push import CHANGE_DRAIN_S, PushSources
from bridge.testing.clock import ManualClock
from bridge.util import telemetry
from bridge.util.aio import Supervisor
from tests.harness import wait_until


class Ticker:
    """A source that notes what is asked of it."""

    kind = "ticker"
    function = "handle"

    def __init__(self, name, source, parts):
        if source.place == "nowhere":
            raise ConfigError(f"sources.{name}: nowhere")
        self.name, self.place, self.settings = name, source.place, parts.settings
        self.trouble = ""
        self.calls = []
        self.hangs = False
        TICKERS.append(self)

    async def run(self):
        self.calls.append("run")
        try:
            await asyncio.Event().wait()
        finally:
            self.calls.append("cancelled")

    async def drain(self):
        self.calls.append("drain")
        if self.hangs:
            await asyncio.Event().wait()


TICKERS = []


def settings(*, concurrency=1, **places):
    sources = {name: SimpleNamespace(type="ticker", place=place) for name, place in places.items()}
    return SimpleNamespace(
        sources=sources, webhooks={}, listen=SimpleNamespace(trusted_proxies=()), invocation=concurrency,
        account="123456789012", region="eu-central-1",
    )  # fmt: skip


class World:
    def __init__(self, **places):
        TICKERS.clear()
        self.clock = ManualClock()
        self.tasks = Supervisor(clock=self.clock, delays_s=(1.0,), failures_max=5, window_s=600)
        self.sources = PushSources(
            settings(**places), intake=None, invoker=None, clock=self.clock, tasks=self.tasks,
            makers={"ticker": Ticker},
        )  # fmt: skip
        self.sources.start()

    async def reload(self, **places):
        prepared = self.sources.prepare(settings(**places))
        self.sources.serve(prepared)
        await self.sources.replace(prepared)
        await asyncio.sleep(0)

    def places(self):
        return {source.name: source.place for source in self.sources.running()}


@pytest.fixture
async def world(leaves_no_task):
    world = World(a="here", b="there")
    await asyncio.sleep(0)
    yield world
    await world.sources.drain(deadline_s=1)
    await world.tasks.close()


async def test_a_reload_touches_only_what_changed(world):
    a, b = TICKERS
    await world.reload(a="here", b="elsewhere", c="new")

    assert a.calls == ["run"]
    assert b.calls == ["run", "drain", "cancelled"]
    assert world.places() == {"a": "here", "b": "elsewhere", "c": "new"}
    assert [ticker.calls for ticker in TICKERS[2:]] == [["run"], ["run"]]

    await world.reload(c="new")
    assert world.places() == {"c": "new"}
    assert a.calls == ["run", "drain", "cancelled"]


async def test_limits_that_all_share_make_every_source_anew(world):
    await world.reload(a="here", b="there", concurrency=2)

    assert [ticker.calls for ticker in TICKERS] == [["run", "drain", "cancelled"]] * 2 + [["run"]] * 2
    assert all(source.settings.invocation == 2 for source in world.sources.running())


async def test_a_mistake_changes_nothing(world):
    with pytest.raises(ConfigError, match=r"sources\.c: nowhere"):
        world.sources.prepare(settings(a="changed", c="nowhere"))

    assert world.places() == {"a": "here", "b": "there"}
    assert [ticker.calls for ticker in TICKERS[:2]] == [["run"], ["run"]]


async def test_a_source_that_cannot_finish_is_cut_off_and_keeps_nobody(world):
    a, b = TICKERS
    a.hangs = True
    await world.sources.drain(deadline_s=0.01)

    assert a.calls == b.calls == ["run", "drain", "cancelled"]
    assert world.sources.running() == []


async def test_one_that_fails_at_its_end_keeps_no_other(world):
    a, b = TICKERS

    async def fail():
        raise ValueError("no")

    a.drain = fail
    await world.sources.drain(deadline_s=CHANGE_DRAIN_S)
    assert a.calls == ["run", "cancelled"]
    assert b.calls == ["run", "drain", "cancelled"]


async def test_trouble_is_shown_at_once_and_told_after_a_minute(world):
    TICKERS[0].trouble = "no broker answers"
    for _ in range(61):
        world.sources.observe()
        await world.clock.advance(1.0)

    assert world.sources.troubles() == ["source a is in trouble for 61 s: no broker answers"]
    assert world.sources.facts() == [
        ("source a", False, "no broker answers"),
        ("source b", True, "ticker: there"),
    ]
    assert world.sources.status()[0] == {
        "name": "a", "type": "ticker", "place": "here", "trouble": "no broker answers"
    }  # fmt: skip

    TICKERS[0].trouble = ""
    world.sources.observe()
    assert world.sources.troubles() == []


async def test_one_that_ends_by_an_error_runs_again(world, monkeypatch):
    runs = []

    async def run(self):
        runs.append(self.place)
        if len(runs) == 1:
            raise ValueError("no")
        await asyncio.Event().wait()

    monkeypatch.setattr(Ticker, "run", run)
    await world.reload(a="again", b="there")
    assert runs == ["again"]
    await world.clock.advance(1.0)
    await wait_until(lambda: len(runs) == 2, description="it runs again")


class FeedableTicker(Ticker):
    """One that takes events by hand, and has times."""

    next_at = 1_772_359_200
    last_at = None

    async def feed(self, given):
        return Accepted(ids=(f"{self.name}:{given.topic}",))


async def test_sources_are_given_events_by_name(world):
    world.sources._makers = {"ticker": FeedableTicker}
    await world.reload(a="here", b="else")

    assert await world.sources.feed("b", Given(topic="t")) == Accepted(ids=("b:t",))
    with pytest.raises(NotAccepted, match="a is of type ticker, which takes nothing by hand"):
        await world.sources.feed("a", Given())
    with pytest.raises(NotAccepted) as caught:
        await world.sources.feed("nobody", Given())
    assert caught.value.status == 404


async def test_views_tell_what_is_known_of_each(world):
    world.sources._makers = {"ticker": FeedableTicker}
    await world.reload(a="here", c="new")
    TICKERS[-1].trouble = "lost"
    telemetry.EVENTS_ACCEPTED.labels(source="c", type="Event").inc(2)
    a, c = world.sources.views()

    assert a == {
        "name": "a", "type": "ticker", "place": "here", "function": "handle", "invocation_type": "Event", "trouble": "",
        "accepted": a["accepted"],
    }  # fmt: skip
    assert (c["next_at"], c["last_at"], c["trouble"], c["accepted"] >= 2) == (1_772_359_200, None, "lost", True)


async def test_facts_tell_when_the_next_tick_is(world):
    world.sources._makers = {"ticker": FeedableTicker}
    await world.reload(a="here", c="new")

    assert world.sources.facts() == [
        ("source a", True, "ticker: here"),
        ("source c", True, "ticker: new, next 2026-03-01T10:00:00Z"),
    ]
    TICKERS[-1].next_at = None
    assert world.sources.facts()[1] == ("source c", True, "ticker: new, never again")


async def test_idle_types_do_not_run_and_take_what_they_are_given(world):
    world.sources._makers, world.sources._idle = {"ticker": FeedableTicker}, frozenset({"ticker"})
    await world.reload(a="here", b="there", c="new")

    assert TICKERS[-1].calls == []
    assert await world.sources.feed("c", Given(topic="t")) == Accepted(ids=("c:t",))
    assert world.sources.facts()[2][2] == "ticker: new, not asked here: bridge put c gives it events"
    await world.reload(a="here", b="there")
    assert TICKERS[-1].calls == ["drain"]
