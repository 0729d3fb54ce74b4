"""The composition root: builds every part, starts them in order, drains them in reverse; names the adapters."""

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import structlog

from bridge import __version__
from bridge.api.app import ApiApp, ReloadResult, Services
from bridge.config.functions import function_specs
from bridge.config.load import load
from bridge.config.mistakes import ConfigErrors
from bridge.config.settings import Settings, TlsFiles
from bridge.config.sources import WebhookSettings
from bridge.config.watch import watch
from bridge.core import limits
from bridge.core.errors import BridgeError, ConfigError
from bridge.core.invocation import InvocationType
from bridge.destinations.spill import Spill
from bridge.invokers.service import FunctionService
from bridge.journal.journal import SegmentJournal
from bridge.journal.outcomes import OutcomesLog
from bridge.journal.retention import Retention
from bridge.pipeline.delivery import AsyncDelivery
from bridge.pipeline.dispatcher import Dispatcher
from bridge.pipeline.intake import JournalIntake
from bridge.pipeline.redrive import Redrives
from bridge.pipeline.replay import Replays
from bridge.registry.catalog import FunctionCatalog
from bridge.runtime.logs import FunctionLogs
from bridge.runtime.pool import WorkerPool
from bridge.sources.push.signatures import make_verifier
from bridge.sources.push.webhook import Route, WebhookSource
from bridge.store.ballast import Ballast
from bridge.store.folder import StateFolder
from bridge.store.state import open_state
from bridge.util import logs as log_setup
from bridge.util import telemetry
from bridge.util.aio import SWITCH_INTERVAL_S, Supervisor
from bridge.util.clocks import SystemClock
from bridge.util.listener import Listener, ListenerLimits

log = structlog.get_logger("bridge.daemon")

_SWEEP_S = 1.0
_BALLAST_S = 2.0
_WATCH_STANDS_S = 1.0
_FATAL_STATUS = 70
"""Exit status after a failed fsync: the journal can no longer be trusted to keep what it says yes to."""
_PACKAGES = Path(sys.prefix) / "share" / "bridge" / "packages"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What a started daemon tells whoever started it."""

    public: str
    """URL of the public listener."""
    api: str
    """URL of the api listener."""
    state: Path
    functions: tuple[str, ...]
    routes: tuple["ReadyRoute", ...]
    watched: bool
    took_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyRoute:
    """A webhook route, for the banner."""

    path: str
    methods: tuple[str, ...]
    function: str
    invocation_type: InvocationType
    scheme: str


class Daemon:
    """All parts of one daemon over one state folder.

    `open()` raises before anything listens; `close()` drains within one deadline.
    """

    def __init__(self, settings: Settings, *, config_path: Path | None, watches: bool = False) -> None:
        self._settings = settings
        self._config_path = config_path
        self._watches = watches
        self._clock = SystemClock()
        self._started_at = self._clock.time()
        self._supervisor = Supervisor(
            clock=self._clock,
            delays_s=limits.TASK_RESTART_DELAYS_S,
            failures_max=limits.TASK_FAILURES_MAX,
            window_s=limits.TASK_FAILURES_WINDOW_S,
        )
        self._exit = contextlib.AsyncExitStack()
        self._draining = False
        self._reloading = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None

    # --- start --------------------------------------------------------------------------------

    async def open(self) -> Ready:
        """Start everything in order; on failure everything started so far is closed again.

        Raises:
            ConfigError: an address cannot be bound, a folder not be read.
            StoreBusy, StoreError: the state folder cannot be had.
        """
        began = self._clock.monotonic()
        try:
            await self._open_store()
            await self._open_runtime()
            await self._open_pipeline()
            await self._open_listeners()
        except BaseException:
            await self._exit.aclose()
            raise
        self._start_tasks()
        self._announce()
        gc.freeze()
        took_s = self._clock.monotonic() - began
        log.info("daemon_started", version=__version__, state=str(self._folder.path), took_s=round(took_s, 3))
        return Ready(
            public=self._url(self._public, self._settings.listen.public.host),
            api=self._url(self._api, self._settings.listen.api.host),
            state=self._folder.path,
            functions=tuple(function.name for function in self._catalog.functions()),
            routes=tuple(
                ReadyRoute(
                    path=source.path,
                    methods=tuple(source.methods or ()),
                    function=source.function,
                    invocation_type=source.invocation_type,
                    scheme=source.scheme.scheme,
                )
                for source in self._settings.sources.values()
            ),
            watched=self._watches,
            took_s=took_s,
        )

    async def _open_store(self) -> None:
        settings = self._settings.journal
        self._folder = StateFolder(self._settings.state)
        await asyncio.to_thread(self._folder.open)
        self._exit.callback(self._folder.close)
        log_setup.register_secret(self._folder.token)
        partition = self._folder.path / "p0"
        self._ballast = Ballast(partition / "ballast", size_bytes=settings.ballast_mb * limits.MIB)
        await asyncio.to_thread(self._ballast.ensure)
        self._state = await open_state(partition, release_ballast=self._ballast.release, on_failure=self._fail)
        self._exit.push_async_callback(self._state.close)
        self._outcomes = OutcomesLog(
            folder=partition / "outcomes", clock=self._clock, retention_s=settings.retention_days * 86_400
        )
        await self._outcomes.open()
        self._exit.push_async_callback(self._outcomes.close)
        self._journal = SegmentJournal(
            folder=partition / "journal",
            segment_bytes=settings.segment_mb * limits.MIB,
            low_water_bytes=settings.low_water_mb * limits.MIB,
            on_fatal=self._fail,
        )
        await self._journal.open()
        self._exit.push_async_callback(self._journal.close)

    async def _open_runtime(self) -> None:
        settings = self._settings
        self._catalog = await asyncio.to_thread(self._read_catalog, settings)
        self._register_secrets(settings)
        self._logs = FunctionLogs(
            self._folder.logs, max_bytes_per_function=settings.runtime.log_mb_per_function * limits.MIB
        )
        packages = settings.runtime.packages or (_PACKAGES if _PACKAGES.is_dir() else None)
        api_port = settings.listen.api.port
        self._pool = WorkerPool(
            run_folder=self._folder.run,
            logs=self._logs,
            clock=self._clock,
            workers_max=settings.runtime.workers_max,
            idle_s=settings.runtime.idle_s,
            sandbox=settings.runtime.sandbox,
            packages=packages,
            deny_paths=(self._folder.path,),
            deny_ports=(api_port,) if api_port else (),
            region=settings.region,
        )
        await self._pool.open()
        self._exit.push_async_callback(self._pool.close)
        self._service = FunctionService(
            catalog=self._catalog, runtime=self._pool, clock=self._clock, outcomes=self._outcomes
        )
        self._configure_service(settings)

    async def _open_pipeline(self) -> None:
        settings, state = self._settings, self._state
        self._delivery = AsyncDelivery(
            outcomes=self._outcomes,
            parked=state.parked,
            dead_letters=state.dead_letters,
            destination=Spill(state.dead_letters),
            clock=self._clock,
        )
        self._dispatcher = Dispatcher(
            service=self._service,
            delivery=self._delivery,
            journal=self._journal,
            outcomes=self._outcomes,
            parked=state.parked,
            dead_letters=state.dead_letters,
            marks=state.marks,
            clock=self._clock,
            lane_events_max=settings.journal.lane_events_max,
            lane_bytes_max=int(settings.journal.lane_gb_max * limits.GIB),
        )
        self._intake = JournalIntake(journal=self._journal, dispatcher=self._dispatcher, clock=self._clock)
        self._replays = Replays(
            journal=self._journal,
            outcomes=self._outcomes,
            dead_letters=state.dead_letters,
            jobs=state.jobs,
            invoker=self._service,
            clock=self._clock,
            spawn=self._spawn,
        )
        self._redrives = Redrives(
            dead_letters=state.dead_letters,
            outcomes=self._outcomes,
            jobs=state.jobs,
            clock=self._clock,
            spawn=self._spawn,
            wake=self._dispatcher.due,
        )
        self._retention = Retention(
            self._journal,
            clock=self._clock,
            retention_s=settings.journal.retention_days * 86_400,
            retention_bytes=int(settings.journal.retention_gb * limits.GIB),
            unfinished=self._dispatcher.unfinished,
        )
        await self._dispatcher.open([function.name for function in self._catalog.functions()])
        await self._intake.open(window_s=self._deduplication_window(settings))
        await self._replays.open()
        await self._redrives.open()

    async def _open_listeners(self) -> None:
        settings = self._settings
        listen = settings.listen
        self._routes = self._read_routes(settings)
        self._webhooks = WebhookSource(
            self._routes,
            intake=self._intake,
            invoker=self._service,
            clock=self._clock,
            trusted_proxies=tuple(str(network) for network in listen.trusted_proxies),
            account_id=settings.account,
            region=settings.region,
        )
        self._api_app = ApiApp(self._services(), token=self._folder.token, hosts=tuple(map(str, listen.hosts)))
        tls = (str(listen.tls.cert), str(listen.tls.key)) if isinstance(listen.tls, TlsFiles) else None
        reserve = limits.CONNECTIONS_RESERVE
        self._api = Listener(
            self._api_app,
            name="api",
            host=listen.api.host,
            port=listen.api.port,
            limits=self._listener_limits(connections_max=reserve * 4),
            tls=tls,
        )
        self._public = Listener(
            self._webhooks,
            name="public",
            host=listen.public.host,
            port=listen.public.port,
            limits=self._listener_limits(connections_max=listen.connections_max - reserve),
            tls=tls,
        )
        for listener in (self._api, self._public):
            try:
                await listener.open()
            except OSError as error:
                raise ConfigError(str(error)) from error
            self._exit.push_async_callback(listener.close, 0.1)

    def _listener_limits(self, *, connections_max: int) -> ListenerLimits:
        listen = self._settings.listen
        return ListenerLimits(
            header_s=listen.header_s,
            request_s=listen.request_s,
            keepalive_s=listen.keepalive_s,
            connections_max=connections_max,
        )

    def _start_tasks(self) -> None:
        start = self._supervisor.start
        start("dispatcher", self._dispatcher.run)
        start("outcomes", self._outcomes.run)
        start("retention", self._retention.run)
        start("sweep", self._sweep)
        start("ballast", self._keep_ballast)
        if self._watches:
            self._start_watch()
        self._dispatcher.kick()

    def _announce(self) -> None:
        """Write where the daemon listens, for the command line."""
        document = {
            "pid": os.getpid(),
            "url": self._url(self._api, self._settings.listen.api.host),
            "public": self._url(self._public, self._settings.listen.public.host),
            "version": __version__,
        }
        path = self._folder.path / "daemon.json"
        temporary = path.with_suffix(".new")
        temporary.write_bytes(orjson.dumps(document))
        temporary.chmod(0o600)
        temporary.rename(path)
        self._exit.callback(path.unlink, missing_ok=True)

    def _url(self, listener: Listener, host: str) -> str:
        scheme = "https" if isinstance(self._settings.listen.tls, TlsFiles) else "http"
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
        return f"{scheme}://{shown}:{listener.port}"

    @staticmethod
    def _register_secrets(settings: Settings) -> None:
        """Mask in every log line what the file refers to and does not write."""
        for function in settings.functions.values():
            for secret in function.environment.values():
                if not isinstance(secret.written, str):
                    log_setup.register_secret(secret.reveal())
        for source in settings.sources.values():
            for value in source.scheme.reveal():
                log_setup.register_secret(value)

    # --- from settings to parts -----------------------------------------------------------------

    @staticmethod
    def _read_catalog(settings: Settings) -> FunctionCatalog:
        return FunctionCatalog.from_specs(function_specs(settings), region=settings.region, account=settings.account)

    def _read_routes(self, settings: Settings) -> list[Route]:
        return [self._route(name, source, settings) for name, source in settings.sources.items()]

    def _route(self, name: str, source: WebhookSettings, settings: Settings) -> Route:
        scheme = source.scheme
        return Route(
            name=name,
            path=source.path,
            function=source.function,
            verifier=make_verifier(scheme.scheme, secrets=scheme.reveal(), clock=self._clock, **scheme.options()),
            methods=tuple(source.methods or ()),
            invocation_type=source.invocation_type,
            body_max_bytes=source.body_max_bytes,
            deduplicate_s=float(source.deduplicate_s),
            async_payload_max_bytes=settings.invocation.async_payload_max_bytes,
        )

    @staticmethod
    def _deduplication_window(settings: Settings) -> float:
        return float(max((source.deduplicate_s for source in settings.sources.values()), default=0))

    def _configure_service(self, settings: Settings) -> None:
        self._service.configure(
            account_concurrency=settings.invocation.account_concurrency,
            reserved_total=self._catalog.reserved_total(),
            sync_wait_s=settings.invocation.sync_wait_s,
        )

    def _services(self) -> Services:
        state = self._state
        return Services(
            journal=self._journal,
            outcomes=self._outcomes,
            parked=state.parked,
            dead_letters=state.dead_letters,
            jobs=state.jobs,
            replays=self._replays,
            redrives=self._redrives,
            lanes=self._dispatcher,
            invoker=self._service,
            intake=self._intake,
            logs=self._logs,
            functions=self._catalog.functions,
            reload=self.reload,
            readiness=self._problems,
            facts=self._facts,
            version=__version__,
            clock=self._clock,
            async_payload_max_bytes=self._settings.invocation.async_payload_max_bytes,
            status=self._status,
        )

    # --- while it runs --------------------------------------------------------------------------

    def _spawn(self, work: Any, name: str) -> "asyncio.Task[None]":
        return self._supervisor.spawn(work, name=name)

    async def _sweep(self) -> None:
        while True:
            self._intake.sweep()
            self._journal.stats()
            telemetry.CLOCK_STEP_SECONDS.set(self._clock.step_s())
            telemetry.TASKS_FAILED.set(len(self._supervisor.failed()))
            await self._clock.sleep(_SWEEP_S)

    async def _keep_ballast(self) -> None:
        while True:
            await asyncio.to_thread(self._ballast.ensure)
            await self._clock.sleep(_BALLAST_S)

    def _start_watch(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        self._watching = self._supervisor.spawn(self._watch(), name="watch")

    async def _watch(self) -> None:
        """Use edited code from the next invocation on; an edited file is a reload."""
        folders = {function.name: Path(function.latest.code) for function in self._catalog.functions()}
        async with aclosing(watch(folders, self._config_path)) as edits:  # type: ignore[type-var]
            self._supervisor.spawn(self._look_once(folders), name="watch-first-look")
            async for edited in edits:
                for name in sorted(edited.functions):
                    await self._refresh(name)
                if edited.config:
                    result = await self.reload()
                    if result.ok:
                        return  # the reload has started a watch over the new folders

    async def _look_once(self, names: Iterable[str]) -> None:
        """Look at all code again once the watch stands: an edit before that is told by nobody."""
        await self._clock.sleep(_WATCH_STANDS_S)
        for name in names:
            if name in self._catalog:
                await self._refresh(name)

    async def _refresh(self, name: str) -> None:
        try:
            changed = await asyncio.to_thread(self._catalog.refresh, name)
        except BridgeError as error:
            log.warning("function_unreadable", function=name, error=str(error))
            return
        if changed:
            self._pool.retire(name, keep_revision=self._catalog.get(name).latest.revision)
            log.info("function_changed", function=name)

    async def reload(self) -> ReloadResult:
        """Take the file anew: all of it, or, if it holds a mistake, nothing. What runs ends on the old."""
        async with self._reloading:
            if self._draining:
                return self._refused(["the daemon is stopping"])
            try:
                settings = (await asyncio.to_thread(load, self._config_path)).settings
                catalog = await asyncio.to_thread(self._read_catalog, settings)
                routes = self._read_routes(settings)
                self._webhooks.set_routes(routes)
            except ConfigErrors as error:
                return self._refused(str(error).split("\n"))
            except (BridgeError, OSError) as error:
                return self._refused([str(error)])
            return self._take(settings, catalog, routes)

    def _refused(self, mistakes: Sequence[str]) -> ReloadResult:
        telemetry.RELOADS.labels(result="refused").inc()
        log.warning("reload_refused", mistakes=list(mistakes))
        return ReloadResult(ok=False, errors=tuple(mistakes))

    def _take(self, settings: Settings, catalog: FunctionCatalog, routes: list[Route]) -> ReloadResult:
        before, self._settings = self._settings, settings
        self._register_secrets(settings)
        changed = self._catalog.replace_all(catalog)
        changes = [f"function {name}" for name in sorted(changed)]
        for name in changed:
            keep = self._catalog.get(name).latest.revision if name in self._catalog else None
            self._pool.retire(name, keep_revision=keep)
        names = sorted(before.sources.keys() | settings.sources.keys())
        changes += [f"source {name}" for name in names if before.sources.get(name) != settings.sources.get(name)]
        self._routes = routes
        self._webhooks.set_trusted_proxies(tuple(str(network) for network in settings.listen.trusted_proxies))
        self._configure_service(settings)
        self._intake.set_window(self._deduplication_window(settings))
        self._retention.configure(
            retention_s=settings.journal.retention_days * 86_400,
            retention_bytes=int(settings.journal.retention_gb * limits.GIB),
        )
        fixed = ("state", "listen", "runtime", "log", "region", "account")
        changes += [
            f"{section}: counts after a restart"
            for section in fixed
            if getattr(before, section) != getattr(settings, section)
        ]
        self._dispatcher.kick()
        if self._watches:
            self._start_watch()
        telemetry.RELOADS.labels(result="taken").inc()
        log.info("reload_taken", changes=changes)
        return ReloadResult(ok=True, changes=tuple(changes))

    def _problems(self) -> list[str]:
        problems = [f"task {name} failed: {reason}" for name, reason in self._supervisor.failed().items()]
        if self._draining:
            problems.append("draining")
        if self._delivery.unsettled:
            problems.append(f"{self._delivery.unsettled} outcomes wait for the disk")
        return problems

    def _facts(self) -> list[tuple[str, bool, str]]:
        stats = self._journal.stats()
        step_s = self._clock.step_s()
        return [
            *self._pool.sandbox_facts(),
            ("journal", True, f"{stats.segments} segments, {stats.size_bytes / limits.MIB:.1f} MiB"),
            ("clock", abs(step_s) < 1, f"stepped by {step_s:+.1f} s since the start"),
        ]

    def _status(self) -> dict[str, object]:
        stats = self._journal.stats()
        return {
            "uptime_s": round(self._clock.time() - self._started_at, 1),
            "listeners": {
                listener.name: {"port": listener.port, "connections": listener.connections}
                for listener in (self._public, self._api)
            },
            "journal": {
                "segments": stats.segments,
                "size_bytes": stats.size_bytes,
                "oldest_at": stats.oldest_at,
                "held": stats.held,
            },
            "tasks_failed": self._supervisor.failed(),
        }

    # --- end ------------------------------------------------------------------------------------

    def _fail(self, error: Exception) -> None:
        """End at once, without another word to anyone: what was not answered is not known to be stored."""
        log.critical("daemon_failed", error=str(error))
        os._exit(_FATAL_STATUS)

    async def close(self) -> None:
        """Stop intake, finish or leave what runs, close everything: one deadline for all of it."""
        self._draining = True
        began = self._clock.monotonic()
        grace_s = self._settings.drain_grace_s
        log.info("daemon_draining", grace_s=grace_s)

        def left(reserve_s: float = 0.0) -> float:
            return max(0.0, grace_s - reserve_s - (self._clock.monotonic() - began))

        self._webhooks.drain()
        if self._watching is not None:
            self._watching.cancel()
        await self._replays.close(deadline_s=left(2.0))
        await self._redrives.close(deadline_s=left(2.0))
        cut = await self._dispatcher.drain(deadline_s=left(2.0))
        self._api_app.close()
        await self._public.close(left(1.5))
        await self._api.close(min(1.0, left(1.0)))
        await self._supervisor.close()
        await self._dispatcher.close()
        await self._exit.aclose()
        log.info("daemon_stopped", cut_off=cut, took_s=round(self._clock.monotonic() - began, 3))


def run(
    settings: Settings,
    *,
    config_path: Path | None = None,
    watch: bool = False,
    on_ready: Callable[[Ready], None] | None = None,
) -> int:
    """Run a daemon until SIGTERM or SIGINT; returns the exit status.

    Raises:
        ConfigError, StoreBusy, StoreError: it could not be started.
    """
    log_setup.configure(level=settings.log.level, style=settings.log.format)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    main = _main(settings, config_path=config_path, watches=watch, on_ready=on_ready)
    if os.environ.get("BRIDGE_LOOP", "uvloop") == "asyncio":
        return asyncio.run(main)
    import uvloop

    return uvloop.run(main)


async def _main(
    settings: Settings, *, config_path: Path | None, watches: bool, on_ready: Callable[[Ready], None] | None
) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    daemon = Daemon(settings, config_path=config_path, watches=watches)
    reloads: set[asyncio.Task[ReloadResult]] = set()

    def reload() -> None:
        task = loop.create_task(daemon.reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # The file was read a moment ago: a SIGHUP during the start asks for nothing, and must not end the daemon.
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    ready = await daemon.open()
    loop.add_signal_handler(signal.SIGHUP, reload)
    if on_ready is not None:
        on_ready(ready)
    await stop.wait()
    for number in (signal.SIGTERM, signal.SIGINT):  # a second one ends it at once
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)
    await daemon.close()
    return 0
