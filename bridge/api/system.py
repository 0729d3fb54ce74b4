"""Endpoints about the daemon itself: health, readiness, metrics, status, doctor, reload, function logs."""

from collections.abc import AsyncIterator

from bridge.api import views
from bridge.api.fields import Fields
from bridge.api.http import Answer, HttpError, Request, Stream, json_answer
from bridge.api.services import Services
from bridge.core.function import Function, FunctionVersion
from bridge.core.logging_config import GROUP_PREFIX
from bridge.core.ports import JobState
from bridge.registry.grants import in_short
from bridge.registry.interpreters import INTERPRETER, described
from bridge.util import telemetry

_LOG_LINES_MAX = 10_000
_ACTIVE = frozenset({JobState.STARTING, JobState.RUNNING, JobState.PAUSED, JobState.CANCELLING})


class System:
    """Handlers of `/health`, `/ready`, `/metrics` and of `/admin/v1/{status,doctor,reload,functions,logs}`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._started = services.clock.monotonic()

    async def health(self, _request: Request) -> Answer:
        """200 for as long as the loop lives."""
        return json_answer({"status": "ok"})

    async def ready(self, _request: Request) -> Answer:
        """200, or 503 with every reason why not; `troubles` are no reason, for events are taken all the same."""
        problems, troubles = list(self._services.readiness()), list(self._services.troubles())
        if problems:
            return json_answer({"status": "not ready", "problems": problems, "troubles": troubles}, status=503)
        return json_answer({"status": "ready", "problems": [], "troubles": troubles})

    async def metrics(self, _request: Request) -> Answer:
        """Prometheus text."""
        body, content_type = telemetry.render()
        return Answer(200, body, content_type=content_type)

    async def status(self, request: Request) -> Answer:
        """What the daemon does now."""
        Fields.of_query(request).finish()
        services = self._services
        jobs = [job for job in await services.jobs.list() if job.state in _ACTIVE]
        own = {
            "version": services.version,
            "uptime_s": round(services.clock.monotonic() - self._started, 3),
            "problems": list(services.readiness()),
            "troubles": list(services.troubles()),
            "functions": [self._view(function) for function in services.functions()],
            "lanes": [views.lane_view(lane) for lane in services.lanes.status()],
            "jobs": [views.job_view(job) for job in jobs],
        }
        return json_answer(own | dict(services.status()))

    async def functions(self, request: Request) -> Answer:
        """The functions' names and limits, and what runs those of no other runtime."""
        Fields.of_query(request).finish()
        shown = [self._view(function) for function in self._services.functions()]
        return json_answer({"functions": shown, "interpreter": INTERPRETER})

    def _view(self, function: Function) -> dict[str, object]:
        """Return what is shown of a function: also what confines it here, its execution role and what that allows."""
        arn, roles = function.latest.role, self._services.roles
        shown = _function_view(function) | dict(self._services.network(function))
        if function.latest.remote is None:
            shown["sandbox"] = self._services.sandbox_level(function.latest)
        if not arn:
            return shown
        role = None if roles is None else roles.known(arn)
        if role is None or not role.is_known:
            allowed = [
                "unknown: it may do everything" if role is None or role.statements else "unknown: it may do nothing"
            ]
        else:
            allowed = list(in_short(role))
        return shown | {"role": arn, "role_allows": allowed}

    async def doctor(self, request: Request) -> Answer:
        """Every fact that decides what is in force, and whether it is as it should be."""
        Fields.of_query(request).finish()
        facts = [{"name": name, "ok": ok, "detail": detail} for name, ok, detail in self._services.facts()]
        problems = [{"name": "ready", "ok": False, "detail": problem} for problem in self._services.readiness()]
        return json_answer({"version": self._services.version, "facts": [*problems, *facts]})

    async def reload(self, request: Request) -> Answer:
        """Read the configuration again: 200 with what changed, 422 with every mistake (and nothing changed)."""
        fields = await Fields.of_body(request)
        fields.finish()
        result = await self._services.reload()
        if result.ok:
            return json_answer({"changes": list(result.changes)})
        return json_answer(
            {"error": "the configuration has mistakes; nothing changed", "mistakes": list(result.errors)}, status=422
        )

    async def logs(self, request: Request) -> Stream:
        """Log lines of a function, or of all of a log group: `{"at": …, "stream": …, "line": …}` each."""
        fields = Fields.of_query(request)
        lines = fields.integer("lines", low=0, high=_LOG_LINES_MAX)
        follow, stream = fields.boolean("follow"), fields.text("stream") or ""
        fields.finish()
        names = self._of_log(request.params["function"])
        await request.body()
        return Stream(self._lines(names, lines=100 if lines is None else lines, follow=follow, stream=stream))

    def _of_log(self, written: str) -> list[str]:
        """Return the functions that a name, or the name of a log group, stands for. Raises HttpError: none."""
        functions = self._services.functions()
        name = written.removeprefix(GROUP_PREFIX).partition(":")[0]
        if any(function.name == name for function in functions):
            return [name]
        found = [
            function.name
            for function in functions
            if any(version.log_group == written for version in (function.latest, *function.versions.values()))
        ]
        if not found:
            raise HttpError(404, f"no function {written[:64]!r}, and none that writes to a log group of that name")
        return found

    async def _lines(self, names: list[str], *, lines: int, follow: bool, stream: str) -> AsyncIterator[object]:
        async for at, found, text in self._services.logs.tail(*names, lines=lines, follow=follow, stream=stream):
            yield {"at": at, "stream": found, "line": text}


def _function_view(function: Function) -> dict[str, object]:
    latest = function.latest
    if latest.remote is not None:
        return {
            "name": function.name,
            "arn": str(latest.remote.arn),
            "connection": latest.remote.connection.name,
            "handover": latest.remote.handover,
            "timeout_s": latest.timeout_s,
        } | _limits_view(function)
    return {
        "name": function.name,
        "handler": latest.handler,
        **_made_view(function),
        **_layers_view(latest),
        "timeout_s": latest.timeout_s,
        "memory_mb": latest.memory_mb,
    } | _limits_view(function)


def _made_view(function: Function) -> dict[str, object]:
    """Say what a function was made for, and of one that Lambda's API made, what it has beside `$LATEST`."""
    latest = function.latest
    if not function.is_made:
        return {"runtime": described(latest.runtime, latest.interpreter)} if latest.runtime else {}
    return {
        "made_by": "Lambda's API",
        "runtime": latest.runtime if latest.unrunnable else described(latest.runtime, latest.interpreter),
        "trouble": latest.unrunnable,
        "versions": list(function.versions),
        "aliases": {name: alias.version for name, alias in function.aliases.items()},
    }


def _layers_view(latest: FunctionVersion) -> dict[str, object]:
    """Say what the file merges into /opt, and why that cannot be done."""
    if not latest.layers:
        return {}
    return {"layers": [layer.written for layer in latest.layers], "trouble": latest.unrunnable}


def _limits_view(function: Function) -> dict[str, object]:
    config = function.event_invoke
    return {
        "reserved_concurrency": function.reserved_concurrency,
        "maximum_retry_attempts": config.maximum_retry_attempts,
        "maximum_event_age_s": config.maximum_event_age_s,
        "on_success": config.on_success,
        "on_failure": config.on_failure,
        "dead_letter_target": function.latest.dead_letter_target,
        "revision": function.latest.revision,
    }
