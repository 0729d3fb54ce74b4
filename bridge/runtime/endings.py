"""How an invocation ends that its worker could not end itself: the report, the last log lines, the caller's result."""

from bridge.core.errors import RuntimeUnavailable
from bridge.core.invocation import ResultKind
from bridge.runtime import results
from bridge.runtime.process import Job, Worker
from bridge.runtime.results import Report


def refuse(job: Job, error: RuntimeUnavailable) -> None:
    """Tell the caller that nothing ran."""
    if not job.future.done():
        job.future.set_exception(error)


def report(worker: Worker, *, since: float, now: float, status: str) -> Report:
    """Return the report of an invocation that began at `since` (monotonic) and could not be timed in the worker."""
    duration_ms = max(0.0, now - since) * 1000
    return Report(duration_ms, worker.version.memory_mb, (worker.peak_kb + 1023) >> 10, worker.init_ms, status)


def settle(worker: Worker, job: Job, of: Report, kind: ResultKind, payload: bytes, extra: bytes = b"") -> None:
    """Write the job's last log lines and give the caller its result."""
    tail = worker.finish_log(job.invocation.request_id, of, extra)
    if not job.future.done():
        job.future.set_result(results.result(worker.version, of, kind, payload, tail, worker.stream))


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
    of = report(worker, since=job.started_at, now=now, status=failure.status)
    extra = failure.log_line(request_id, time_text=time_text)
    kind = ResultKind.UNKNOWN if is_ours else ResultKind.FUNCTION_ERROR
    settle(worker, job, of, kind, failure.payload(request_id), extra)
