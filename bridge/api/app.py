"""The api listener's ASGI application: guard first, then one handler a path; every error is one JSON line."""

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from bridge.api.awslambda.access import AccessRules
from bridge.api.awslambda.app import LambdaApi
from bridge.api.awslambda.links import PREFIX as LINKS
from bridge.api.awslambda.links import ContentLinks
from bridge.api.deadletters import DeadLetterEndpoints
from bridge.api.events import Events
from bridge.api.guard import check_origin, check_token
from bridge.api.http import HEARTBEAT_S, Answer, HttpError, Request, Stream, error_answer
from bridge.api.invoke import InvokeEndpoint
from bridge.api.jobs import JobEndpoints
from bridge.api.keys import KeyEndpoints
from bridge.api.mappings import MappingEndpoints
from bridge.api.queues import QueueEndpoints
from bridge.api.reset import ResetEndpoints
from bridge.api.router import Handler, Router
from bridge.api.services import ReloadResult, Services
from bridge.api.sources import SourceEndpoints
from bridge.api.streams import StreamEndpoints
from bridge.api.system import System
from bridge.api.targets import TargetEndpoints
from bridge.core.errors import BridgeError, FunctionNotFound, LaneFull, StoreFull
from bridge.util.asgi import ClientGone, Receive, Scope, Send

__all__ = ["AccessRules", "ApiApp", "ReloadResult", "Services"]

log = structlog.get_logger("bridge.api")

STREAMS_MAX: Final = 64
"""Streams open at once; one more gets 503."""
_OPEN_PATHS: Final = frozenset({"/health", "/ready", "/metrics"})
_PREFIX: Final = "/admin/v1"
_OPERATOR: Final = f"{_PREFIX}/lambda"
"""Below it the operator calls what Lambda's API offers, by its paths and without a key: `bridge functions` does."""


class ApiApp:
    """An ASGI 3 application.

    Args:
        services: what the endpoints read and act on.
        token: the admin token; everything but health, readiness and metrics asks for it.
        rules: who may call Lambda's API.
        hosts: further names this listener answers to, beside loopback.
        heartbeat_s: how often an idle stream sends an empty line.
    """

    def __init__(
        self,
        services: Services,
        *,
        token: str,
        rules: AccessRules,
        hosts: Sequence[str] = (),
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self._token = token
        self._hosts = frozenset(hosts)
        self._heartbeat_s = heartbeat_s
        self._closing = asyncio.Event()
        self._streams = 0
        self._router = _routes(services)
        links = ContentLinks(token, services.clock)
        self._lambda = LambdaApi(services, rules, links)

    def set_rules(self, rules: AccessRules) -> None:
        """Let Lambda's API be called by these rules from the next request on."""
        self._lambda.set_rules(rules)

    def close(self) -> None:
        """End all streams, each with a line that says so; requests go on being answered. Twice is fine."""
        self._closing.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        assert scope["type"] == "http", scope["type"]
        request = Request(scope, receive)
        try:
            answer = await self._answer(request)
        except ClientGone:
            return
        except HttpError as error:
            answer = error_answer(error)
        except FunctionNotFound as error:
            answer = error_answer(HttpError(404, str(error)))
        except (LaneFull, StoreFull) as error:
            answer = error_answer(HttpError(503, str(error), headers={"retry-after": "1"}))
        except BridgeError as error:
            log.warning("request_failed", path=request.path, error=str(error))
            answer = error_answer(HttpError(500, str(error)))
        except Exception:  # the task boundary: the caller gets one line, the log the traceback
            log.exception("request_failed", method=request.method, path=request.path)
            answer = error_answer(HttpError(500, "internal error; the daemon's log says more"))
        if isinstance(answer, Stream):
            await self._stream(answer, request, send)
        else:
            await answer.send(send, head_only=request.method == "HEAD")

    async def _answer(self, request: Request) -> Answer | Stream:
        check_origin(request.headers, self._hosts)
        if self._lambda.answers(request.path):
            return await self._lambda.answer(request)
        if request.path.startswith(LINKS):
            return await self._lambda.content(request)
        if request.path not in _OPEN_PATHS:
            check_token(request.headers, self._token)
        if request.path.startswith(f"{_OPERATOR}/"):
            request.path, request.is_operator = request.path.removeprefix(_OPERATOR), True
            return await self._lambda.answer(request)
        return await self._router.find(request)(request)

    async def _stream(self, stream: Stream, request: Request, send: Send) -> None:
        if request.method == "HEAD" or self._streams >= STREAMS_MAX:
            error = HttpError(503, f"{STREAMS_MAX} streams are open already", headers={"retry-after": "5"})
            answer = Answer(200) if request.method == "HEAD" else error_answer(error)
            await answer.send(send, head_only=request.method == "HEAD")
            return
        self._streams += 1
        try:
            await stream.send(request, send, closing=self._closing, heartbeat_s=self._heartbeat_s)
        finally:
            self._streams -= 1


def _routes(services: Services) -> Router[Handler]:
    router = Router[Handler]()
    system, events = System(services), Events(services)
    letters, jobs = DeadLetterEndpoints(services), JobEndpoints(services)
    sources, reset, keys = SourceEndpoints(services), ResetEndpoints(services), KeyEndpoints(services)
    mappings, targets, queues = MappingEndpoints(services), TargetEndpoints(services), QueueEndpoints(services)
    router.add("GET", "/health", system.health)
    router.add("GET", "/ready", system.ready)
    router.add("GET", "/metrics", system.metrics)
    for method, path, handler in (
        ("GET", "/status", system.status),
        ("GET", "/doctor", system.doctor),
        ("GET", "/functions", system.functions),
        ("GET", "/logs/{function}", system.logs),
        ("POST", "/reload", system.reload),
        ("GET", "/reset", reset.look),
        ("POST", "/reset", reset.clear),
        ("GET", "/keys", keys.show),
        ("POST", "/keys/rotate", keys.rotate),
        ("POST", "/invoke/{target}", InvokeEndpoint(services).invoke),
        ("GET", "/events", events.page),
        ("GET", "/events/tail", events.tail),
        ("GET", "/events/export", events.export),
        ("GET", "/events/{id}", events.one),
        ("POST", "/streams/{name}/records", StreamEndpoints(services).put),
        ("GET", "/sources", sources.page),
        ("GET", "/sources/{name}", sources.one),
        ("POST", "/sources/{name}/events", sources.feed),
        ("GET", "/dlq", letters.page),
        ("GET", "/dlq/{id}", letters.one),
        ("POST", "/dlq/purge", letters.purge),
        ("POST", "/dlq/redrive", jobs.redrive),
        ("GET", "/targets", targets.page),
        ("GET", "/targets/records", targets.records),
        ("POST", "/targets/push", targets.push),
        ("POST", "/targets/give-up", targets.give_up),
        ("GET", "/queues", queues.look),
        ("GET", "/queues/move", queues.task),
        ("POST", "/queues/move", queues.move),
        ("POST", "/queues/hand-over", queues.hand_over),
        ("GET", "/redrives", jobs.list_redrives),
        ("GET", "/redrives/{name}", jobs.show_redrive),
        ("GET", "/redrives/{name}/watch", jobs.watch_redrive),
        ("GET", "/replays", jobs.list_replays),
        ("POST", "/replays", jobs.start_replay),
        ("GET", "/replays/{name}", jobs.show_replay),
        ("GET", "/replays/{name}/watch", jobs.watch_replay),
        ("POST", "/replays/{name}/{action}", jobs.act),
        ("GET", "/mappings", mappings.page),
        ("GET", "/mappings/{name}", mappings.one),
        ("GET", "/mappings/{name}/records", jobs.records),
        ("POST", "/mappings/{name}/{action}", mappings.act),
    ):
        router.add(method, _PREFIX + path, handler)
    return router


async def _lifespan(receive: Receive, send: Send) -> None:
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})
