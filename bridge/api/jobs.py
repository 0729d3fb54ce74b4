"""Endpoints of replays and redrives: count, start, look, pause, resume, cancel, watch."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from bridge.api import views
from bridge.api.deadletters import selection_of
from bridge.api.fields import Fields
from bridge.api.http import Answer, HttpError, Request, Stream, json_answer
from bridge.api.selection import compile_where
from bridge.api.services import Services
from bridge.core.errors import ConfigError, MappingNotFound, SourceError
from bridge.core.ports import DeadLetterSelection, Job
from bridge.pipeline.jobs import ACTIVE, IllegalStatus, JobExists, JobNotFound, LimitExceeded, SpecInvalid
from bridge.pipeline.ranges import RangeRecord
from bridge.pipeline.redrive import RedriveSpec
from bridge.pipeline.selecting import ReplaySpec

RATE_MIN: Final = 0.001
RATE_MAX: Final = 1e6
CONCURRENCY_MAX: Final = 1000
_LIMIT_MAX: Final = 10**12
_SETTLED_POLL_S: Final = 0.2
_FAILED_AGAIN_MAX: Final = 10_000
"""Dead letters looked at to count those that failed again; above it the count says `at least`."""
_PAGE: Final = 500


def replay_spec(fields: Fields, inner: Fields, *, ids: str = "ids") -> ReplaySpec:
    """Take the fields of a replay: what is selected from `inner`, the rest from `fields`."""
    since, until = inner.span()
    where = fields.text("where")
    if where is not None:
        compile_where(where, wrong=lambda what: fields.wrong("where", what))
    return ReplaySpec(
        mapping=inner.text("mapping"),
        shards=inner.words("shards"),
        key=inner.text("key"),
        first=inner.places("first"),
        last=inner.places("last"),
        since=since,
        until=until,
        source=inner.text("source"),
        function=inner.text("function"),
        ids=tuple(sorted(inner.ids(ids))),
        outcome="failed" if fields.boolean("failed") else "any",
        pattern=where,
        limit=fields.integer("limit", low=1, high=_LIMIT_MAX),
    )


class JobEndpoints:
    """Handlers of `/admin/v1/replays…`, `/admin/v1/redrives…` and `/admin/v1/dlq/redrive`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._replays = services.replays
        self._redrives = services.redrives

    # --- replays --------------------------------------------------------------------------------
    async def start_replay(self, request: Request) -> Answer:
        """Start one (201), or count what it would send (`dry_run`)."""
        fields = await Fields.of_body(request)
        inner = fields.inner("selection")
        spec = replay_spec(fields, inner)
        spec = replace(
            spec,
            name=fields.name("name") or "",
            to=fields.target("to"),
            rate=fields.number("rate", low=RATE_MIN, high=RATE_MAX),
            concurrency=fields.integer("concurrency", low=1, high=CONCURRENCY_MAX) or spec.concurrency,
            ordered=fields.flag("ordered", default=True),
        )
        dry_run = fields.boolean("dry_run")
        inner.finish()
        fields.finish()
        with refused():
            if not dry_run:
                return json_answer(views.job_view(await self._replays.start(spec)), status=201)
            if spec.to is not None:
                self._services.invoker.dry_run(spec.to)
            counted = await self._replays.count(spec)
        answer: dict[str, object] = {
            "count": counted.events,
            "bytes": counted.bytes,
            "functions": counted.by_function,
            "sources": counted.by_source,
            "damaged": counted.damaged,
        }
        if spec.mapping is not None:
            answer |= {"shards": counted.by_shard, "gone": counted.gone, "upper_bound": counted.is_upper_bound}
        return json_answer(answer)

    async def records(self, request: Request) -> Stream:
        """Write the records of a mapping's stream, in order within each shard: what a replay of them would read."""
        fields = Fields.of_query(request)
        since, until = fields.span()
        spec = ReplaySpec(
            mapping=request.params["name"],
            since=since,
            until=until,
            shards=fields.words("shards"),
            key=fields.text("key"),
            first=fields.places("first"),
            last=fields.places("last"),
            pattern=fields.text("where"),
            limit=fields.integer("limit", low=1, high=_LIMIT_MAX),
        )
        fields.finish()
        await request.body()
        with refused():
            return Stream(_records(await self._replays.records(spec)))

    async def list_replays(self, request: Request) -> Answer:
        """All, newest first."""
        Fields.of_query(request).finish()
        return json_answer({"replays": [views.job_view(job) for job in await self._replays.list()]})

    async def show_replay(self, request: Request) -> Answer:
        """One."""
        Fields.of_query(request).finish()
        return json_answer(views.job_view(_known(await self._replays.get(request.params["name"]), request)))

    async def watch_replay(self, request: Request) -> Stream:
        """A line whenever it has moved, until it runs no more."""
        await request.body()
        name = _known(await self._replays.get(request.params["name"]), request).name
        return Stream(_views(self._replays.watch(name)))

    async def act(self, request: Request) -> Answer:
        """Pause, resume or cancel."""
        fields = await Fields.of_body(request)
        fields.finish()
        actions: dict[str, Callable[[str], Awaitable[Job]]] = {
            "pause": self._replays.pause,
            "resume": self._replays.resume,
            "cancel": self._replays.cancel,
        }
        action = actions.get(request.params["action"])
        if action is None:
            raise HttpError(404, f"a replay can be told to {', '.join(actions)}")
        with refused():
            return json_answer(views.job_view(await action(request.params["name"])))

    # --- redrives -------------------------------------------------------------------------------
    async def redrive(self, request: Request) -> Answer:
        """Start one (201), or count what it would send (`dry_run`)."""
        fields = await Fields.of_body(request)
        inner = fields.inner("selection")
        selection = selection_of(inner, ids="ids")
        if selection.state == "redriving":
            raise inner.wrong("state", "only dead ones can be redriven")
        where = fields.text("where")
        if where is not None:
            compile_where(where, wrong=lambda what: fields.wrong("where", what))
        spec = RedriveSpec(
            name=fields.name("name") or "",
            queue=selection.queue,
            since=selection.since,
            until=selection.until,
            source=selection.source,
            function=selection.function,
            ids=tuple(sorted(selection.ids)),
            pattern=where,
            failed=fields.boolean("failed"),
            to=fields.target("to"),
            rate=fields.number("rate", low=RATE_MIN, high=RATE_MAX),
        )
        dry_run = fields.boolean("dry_run")
        inner.finish()
        fields.finish()
        with refused():
            if spec.to is not None:
                self._services.invoker.dry_run(spec.to)
            if dry_run:
                return json_answer({"count": await self._redrives.count(spec)})
            return json_answer(views.job_view(await self._redrives.start(spec)), status=201)

    async def list_redrives(self, request: Request) -> Answer:
        """All, newest first."""
        Fields.of_query(request).finish()
        return json_answer({"redrives": [views.job_view(job) for job in await self._redrives.list()]})

    async def show_redrive(self, request: Request) -> Answer:
        """One, and what has become of its events so far."""
        Fields.of_query(request).finish()
        job = _known(await self._redrives.get(request.params["name"]), request)
        return json_answer(views.job_view(job) | {"settled": await self._settled(job)})

    async def watch_redrive(self, request: Request) -> Stream:
        """A line whenever something moved, until every redriven event has succeeded or failed again."""
        await request.body()
        job = _known(await self._redrives.get(request.params["name"]), request)
        return Stream(self._watch_settling(job.name))

    async def _watch_settling(self, name: str) -> AsyncIterator[object]:
        last: object = None
        while (job := await self._redrives.get(name)) is not None:
            settled = await self._settled(job)
            view = views.job_view(job) | {"settled": settled}
            if view != last:
                last = view
                yield view
            if job.state not in ACTIVE and not settled["open"]:
                return
            await self._services.clock.sleep(_SETTLED_POLL_S)

    async def _settled(self, job: Job) -> dict[str, int]:
        """Count what has become of a redrive's events.

        `open`: parked or running; `failed_again`: dead letters that died after the redrive began; `succeeded`: the
        rest, for a success removes its dead letter. Two redrives of the same letters at once share their counts.
        """
        spec = RedriveSpec.from_json(job.spec)
        letters = self._services.dead_letters
        function = spec.to.partition(":")[0] if spec.to else spec.function
        mine = DeadLetterSelection(queue=spec.queue, source=spec.source, ids=frozenset(spec.ids))
        open_count = min(job.done, await letters.count(replace(mine, function=spec.function, state="redriving")))
        failed, after = 0, None
        for _ in range(_FAILED_AGAIN_MAX // _PAGE):
            page = await letters.select(
                replace(mine, function=function, since=job.created_at, state="dead"), limit=_PAGE, after=after
            )
            failed += sum(letter.redrives > 0 for letter in page)
            if len(page) < _PAGE:
                break
            after = (page[-1].dead_at, page[-1].id)
            await asyncio.sleep(0)
        failed = min(failed, job.done - open_count)
        return {"open": open_count, "failed_again": failed, "succeeded": job.done - open_count - failed}


async def _views(jobs: AsyncIterator[Job]) -> AsyncIterator[object]:
    async for job in jobs:
        yield views.job_view(job)


async def _records(records: AsyncIterator[RangeRecord]) -> AsyncIterator[object]:
    with refused():
        async for record in records:
            yield views.record_view(record)


def _known(job: Job | None, request: Request) -> Job:
    if job is None:
        kind = "redrive" if "/redrives/" in request.path else "replay"
        raise HttpError(404, f"no {kind} {request.params['name'][:64]!r}")
    return job


@contextmanager
def refused() -> Iterator[None]:
    """Turn what a job refuses, or the stream of a mapping, into an answer."""
    try:
        yield
    except SpecInvalid as error:
        raise HttpError(400, str(error)) from error
    except (JobNotFound, MappingNotFound) as error:
        raise HttpError(404, str(error)) from error
    except (JobExists, IllegalStatus, ConfigError) as error:
        raise HttpError(409, str(error)) from error
    except SourceError as error:
        raise HttpError(503, str(error)) from error
    except LimitExceeded as error:
        raise HttpError(429, str(error), headers={"retry-after": "5"}) from error
