"""How an invocation ends: the report, the last log lines, the caller's result."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import structlog

from bridge.core.errors import RuntimeUnavailable
from bridge.core.invocation import ResultKind
from bridge.runtime import results
from bridge.runtime.job import Job
from bridge.runtime.process import Worker
from bridge.runtime.results import Report

log = structlog.get_logger("bridge.runtime")

GONE_MAX_S: Final = 0.9
"""A killed worker's invocation ends at the latest then, even if the kernel has not cleaned up yet."""
LAST_WORDS_S: Final = 0.05
EXIT_MAX_S: Final = 0.2
"""A worker whose socket has closed has this long to end by itself, so that its exit status is known."""


def note(worker: Worker, ended: Mapping[str, Any]) -> None:
    """Note how the process of a worker has ended, as its keeper reports it."""
    worker.ended_status = ended["status"]
    if ended["short_of_memory"]:  # it grew faster than anybody looks
        worker.peak_kb = worker.version.memory_mb << 10


def refuse(job: Job, error: RuntimeUnavailable) -> None:
    """Tell the caller that nothing ran."""
    if not job.future.done():
        job.future.set_exception(error)


def not_started(worker: Worker | None, job: Job | None, error: BaseException) -> None:
    """Tell the caller, if any, that nothing ran; of a job sent already, its worker's end tells that this is unknown.

    What is nobody's fault but ours is logged with its traceback.
    """
    text = str(error)
    if isinstance(error, asyncio.CancelledError):
        text = "the worker pool is closing"
    elif not isinstance(error, RuntimeUnavailable | OSError):
        name = job.version.name if job is not None else "provisioned concurrency"
        text = f"no worker for {name}: {error!r}; see the daemon's log"
        log.error("worker_start_failed", function=name, exc_info=error)
    if job is None:
        if worker is not None:
            worker.start_error = worker.start_error or text
        return
    if worker is None or job not in worker.jobs:
        refuse(job, RuntimeUnavailable(text))
    else:
        worker.is_orphan = True


def report(worker: Worker, *, since: float, now: float, status: str) -> Report:
    """Return the report of an invocation that began at `since` (monotonic) and could not be timed in the worker."""
    duration_ms = max(0.0, now - since) * 1000
    init_ms = None if worker.in_invocation else worker.init_ms  # there it is part of the duration
    return Report(duration_ms, worker.version.memory_mb, worker.used_mb, init_ms, status)


def may_initialise_again(worker: Worker) -> bool:
    """Tell whether init, which failed, is to run once more inside the invocation that waits for it (semantics 6.2)."""
    if worker.is_ready or worker.in_invocation or worker.start_error or not worker.jobs:
        return False
    return not worker.jobs[0].future.done()


def taken(worker: Worker) -> list[Job]:
    """Take its jobs off a worker; return those that somebody still waits for."""
    jobs = [job for job in worker.jobs if not job.future.done()]
    worker.jobs.clear()
    for job in jobs:
        job.worker = None
    return jobs


def report_init(worker: Worker, *, now: float, status: str, error_type: str) -> None:
    """Write the line of an init that did not end well."""
    worker.log_init_failed(
        max(0.0, now - worker.began_at) * 1000,
        status=status,
        error_type="" if status == "timeout" else error_type,
    )


def settle(worker: Worker, job: Job, of: Report, kind: ResultKind, payload: bytes, extra: bytes = b"") -> None:
    """Write the job's last log lines and give the caller its result."""
    if worker.fleet.provisioned:
        worker.fleet.count(worker)
    tail = worker.finish_log(job.invocation.request_id, of, extra)
    if not job.future.done():
        job.future.set_result(
            results.result(
                worker.version.version,
                of.duration_ms,
                billed_ms=of.billed_ms,
                used_mb=of.used_mb,
                init_ms=of.init_ms,
                kind=kind,
                payload=payload,
                log_tail=tail,
                log_stream=worker.stream,
            )
        )


def fail(worker: Worker, job: Job, *, now: float, time_text: bytes, is_ours: bool) -> None:
    """End a job whose worker has ended under it.

    Args:
        worker: the one that ended.
        job: what it was running.
        now: monotonic time.
        time_text: the wall clock as AWS writes it in the log.
        is_ours: the daemon or its zygote ended the worker: whether the event was handled is unknown.
    """
    if worker.start_error:
        refuse(job, RuntimeUnavailable(f"no worker for {worker.version.name}: {worker.start_error}"))
        return
    failure = worker.failure or results.exited(worker.ended_status or 0)
    request_id = job.invocation.request_id
    if not worker.is_ready:
        report_init(worker, now=now, status=failure.status, error_type=failure.error_type)
    of = report(worker, since=job.started_at, now=now, status=failure.report_status)
    extra = worker.lines.failure(failure, request_id, time_text=time_text)
    kind = ResultKind.UNKNOWN if is_ours else ResultKind.FUNCTION_ERROR
    settle(worker, job, of, kind, failure.payload(request_id), extra)


def fail_init(worker: Worker, job: Job, payload: bytes, *, now: float) -> None:
    """End a job whose worker could not begin: `payload` is the error JSON, `now` monotonic."""
    error_type, _ = results.error_fields(payload)
    extra = b""
    if (failure := results.platform_failure(payload)) is not None:
        request_id = job.invocation.request_id
        payload = failure.payload(request_id)
        extra = worker.lines.failure(failure, request_id, time_text=b"")
    report_init(worker, now=now, status="error", error_type=error_type)
    worker.is_ready = True
    of = report(worker, since=worker.began_at, now=now, status=results.error_status(error_type))
    settle(worker, job, of, ResultKind.FUNCTION_ERROR, payload, extra)


def answer(worker: Worker, job: Job, *, ok: bool, payload: bytes, duration_ms: float) -> None:
    """End a job that its worker has answered: with the handler's result, or with its error."""
    init_ms = worker.init_ms
    if init_ms is not None and worker.in_invocation:
        duration_ms += init_ms
        init_ms = None
    if worker.fleet.provisioned:
        worker.fleet.count(worker)
    billed_ms = results.billed(duration_ms)
    request_id = job.invocation.request_id
    tail = worker.finish_quiet(request_id, duration_ms, billed_ms)
    if tail is None:
        of = Report(duration_ms, worker.version.memory_mb, worker.used_mb, init_ms)
        tail = worker.finish_log(request_id, of)
        worker.init_ms = None
    if not job.future.done():
        job.future.set_result(
            results.result(
                worker.version.version,
                duration_ms,
                billed_ms=billed_ms,
                used_mb=worker.used_mb,
                init_ms=init_ms,
                kind=ResultKind.OK if ok else ResultKind.FUNCTION_ERROR,
                payload=payload,
                log_tail=tail,
                log_stream=worker.stream,
            )
        )
