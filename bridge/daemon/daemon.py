"""A daemon's life: its listeners, its tasks, its reloads, and one deadline for its end."""

import asyncio
import contextlib
import gc
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import structlog

from bridge import __version__
from bridge.api.app import ApiApp, ReloadResult, Services
from bridge.config.load import load
from bridge.config.mappings import mapping_values
from bridge.config.mistakes import ConfigErrors
from bridge.config.settings import Settings, TlsFiles
from bridge.core import limits
from bridge.core.errors import BridgeError, ConfigError
from bridge.core.function import Function, FunctionVersion
from bridge.core.mapping import MappingState
from bridge.daemon.composition import Parts, read_catalog
from bridge.daemon.edits import Edits
from bridge.daemon.function_urls import address_of, function_url_app
from bridge.daemon.health import TROUBLE_TOLD_S, Fact, Health
from bridge.daemon.listening import listener_limits
from bridge.daemon.masking import register_secrets
from bridge.daemon.networks import check_networks, network_view
from bridge.daemon.notices import lost_functions, notices
from bridge.daemon.permits import make_permits
from bridge.daemon.push import PushSources
from bridge.daemon.ready import Ready, announce, ready_receivers, ready_routes
from bridge.registry.catalog import FunctionCatalog
from bridge.runtime import confined
from bridge.util import telemetry
from bridge.util.aio import Supervisor
from bridge.util.clocks import SystemClock
from bridge.util.listener import Listener

log = structlog.get_logger("bridge.daemon")

_SWEEP_S = 1.0
_CLOCK_STEP_MIN_S = 1.0
"""A smaller step of the system's clock is not worth a line."""
_BALLAST_S = 2.0
_JOBS_CLOSE_S = 5.0
"""How long a drain waits for replays and redrives, beside the lanes."""
_RELOAD_CLOSE_S = 5.0
"""How long a stop waits for a reload that runs."""
_OUTBOX_CLOSE_S = 5.0
"""How long a drain sends on what the last events left for targets; the rest waits on disk."""
_FATAL_STATUS = 70
"""Exit status after a failed fsync: the journal can no longer be trusted to keep what it says yes to."""


class Daemon:
    """All parts of one daemon over one state folder.

    `open()` raises before anything listens; `close()` drains within one deadline.

    Args:
        settings: what is in force at the start.
        config_path: where later settings are read; None: there are none.
        watches: edited code and an edited file count at once.
        local: `settings` are those of `load(local=True)`, as later ones will be; no remote function is invoked.
        allow_remote: for every mapping and function, what would ask for it is meant.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        config_path: Path | None,
        watches: bool = False,
        local: bool = False,
        allow_remote: bool = False,
    ) -> None:
        self._settings = settings
        self._is_reachable = not settings.listen.api.is_loopback
        """The api listens where others come, to the end, whatever later files say."""
        self.local = local
        self.allow_remote = allow_remote
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
        self._parts = Parts(
            settings,
            clock=self._clock,
            spawn=self._spawn,
            tasks=self._supervisor,
            is_local=local,
            asks_before_remote=watches or sys.stdin.isatty(),
            allow_remote=allow_remote,
            fail=self._fail,
            exit_stack=self._exit,
        )
        self._health = Health(
            mappings=lambda: list(self._parts.mappings.status()),
            connections=lambda: self._parts.streams.connections,
            clock=self._clock,
        )
        self._draining = False
        self._reloading = asyncio.Lock()
        self._edits = Edits(
            self._parts, config_path=config_path, spawn=self._spawn, clock=self._clock, reload=self.reload
        )

    # --- start --------------------------------------------------------------------------------

    async def open(self) -> Ready:
        """Start everything in order; on failure everything started so far is closed again.

        Raises:
            ConfigError: an address cannot be bound, a folder not be read.
            StoreBusy, StoreError: the state folder cannot be had.
        """
        began = self._clock.monotonic()
        try:
            await self._parts.open()
            await self._open_listeners()
        except BaseException:
            await self._exit.aclose()
            raise
        self._parts.provision()
        self._start_tasks()
        self._announce()
        for name, ok, text in (*self._notices(), *lost_functions(self._parts.catalog.functions())):
            if not ok:
                log.warning("worth_knowing", about=name, detail=text)
        gc.freeze()
        took_s = self._clock.monotonic() - began
        log.info("daemon_started", version=__version__, state=str(self._parts.folder.path), took_s=round(took_s, 3))
        return Ready(
            public=self._url(self._public, self._settings.listen.public.host),
            api=self._url(self._api, self._settings.listen.api.host),
            state=self._parts.folder.path,
            functions=tuple(function.name for function in self._parts.catalog.functions()),
            routes=ready_routes(self._settings),
            receivers=ready_receivers(self._sources.running()),
            mappings=tuple(mapping_values(self._settings)),
            watched=self._watches,
            took_s=took_s,
        )

    async def _open_listeners(self) -> None:
        settings = self._settings
        listen = settings.listen
        self._sources = PushSources(
            settings,
            intake=self._parts.intake,
            invoker=self._parts.service,
            clock=self._clock,
            tasks=self._supervisor,
            makers=self._parts.makers,
            idle=frozenset({"mqtt"}) if self.local and not self.allow_remote else frozenset(),
            permits=make_permits(self._parts.attached.policies, settings),
        )
        self._api_app = ApiApp(
            self._services(),
            token=self._parts.folder.token,
            rules=self._parts.access_rules(settings),
            hosts=tuple(map(str, listen.hosts)),
        )
        tls = (str(listen.tls.cert), str(listen.tls.key)) if isinstance(listen.tls, TlsFiles) else None
        reserve = limits.CONNECTIONS_RESERVE
        self._api = Listener(
            self._api_app,
            name="api",
            host=listen.api.host,
            port=listen.api.port,
            limits=listener_limits(listen, connections_max=reserve * 4),
            tls=tls,
        )
        self._public = Listener(
            function_url_app(
                settings,
                self._parts,
                self._sources.webhooks,
                keys=lambda key_id: self._parts.access_rules(self._settings).key(key_id),
                clock=self._clock,
            ),
            name="public",
            host=listen.public.host,
            port=listen.public.port,
            limits=listener_limits(listen, connections_max=listen.connections_max - reserve),
            tls=tls,
        )
        for listener in (self._api, self._public):
            try:
                await listener.open()
            except OSError as error:
                raise ConfigError(str(error)) from error
            self._exit.push_async_callback(listener.close, 0.1)
        self._parts.role_credentials.api_url = self._url(self._api, listen.api.host)

    def _start_tasks(self) -> None:
        start = self._supervisor.start
        start("dispatcher", self._parts.dispatcher.run)
        start("outcomes", self._parts.outcomes.run)
        start("outbox", self._parts.outbox.run)
        start("cloudwatch", self._parts.shipping.run)
        start("retention", self._parts.retention.run)
        start("sweep", self._sweep)
        start("ballast", self._keep_ballast)
        start("packages", self._parts.made.run)
        start("roles", self._parts.roles.run)
        start("role-credentials", self._parts.role_credentials.run)
        if self._watches:
            self._edits.start()
        self._parts.dispatcher.kick()
        self._parts.mappings.start()
        self._sources.start()

    def _announce(self) -> None:
        """Write where the daemon listens, for the command line."""
        listen = self._settings.listen
        path = announce(
            self._parts.folder.path,
            url=self._url(self._api, listen.api.host),
            public=self._url(self._public, listen.public.host),
            certificate=str(listen.tls.cert) if isinstance(listen.tls, TlsFiles) else "",
        )
        self._exit.callback(path.unlink, missing_ok=True)

    def _url(self, listener: Listener, host: str) -> str:
        scheme = "https" if isinstance(self._settings.listen.tls, TlsFiles) else "http"
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
        return f"{scheme}://{shown}:{listener.port}"

    # --- from settings to parts -----------------------------------------------------------------

    def _services(self) -> Services:
        parts, state = self._parts, self._parts.state
        return Services(
            journal=parts.journal, outcomes=parts.outcomes, parked=state.parked, dead_letters=state.dead_letters,
            jobs=state.jobs, replays=parts.replays, redrives=parts.redrives, lanes=parts.dispatcher,
            mappings=parts.mappings, streams=parts.local_streams, made=parts.made, queues=parts.dead_letter_queues,
            made_mappings=parts.made_mappings, attached=parts.attached, code=parts.code,
            url_address=lambda url_id, region: address_of(self._settings.listen, self._public.port, url_id, region),
            sources=self._sources, readers=parts.journal_streams.readers,
            invoker=parts.service, intake=parts.intake, logs=parts.logs, functions=parts.catalog.functions,
            function=parts.catalog.get, refuse=parts.delivery.refuse,
            reload=self.reload, readiness=self._problems, facts=self._facts, troubles=self._troubles,
            outbox=state.outbox, sender=parts.outbox, version=__version__, clock=self._clock,
            account_concurrency=lambda: self._settings.invocation.account_concurrency,
            warmth=parts.pool.provisioned.state, network=self._network,
            sandbox_level=parts.pool.sandbox_level,
            async_payload_max_bytes=self._settings.invocation.async_payload_max_bytes, status=self._status,
            has_memory_steps=lambda: self._settings.invocation.legacy_memory_steps,
            roles=parts.roles, may_reset=lambda: self._settings.dev.reset,
        )  # fmt: skip

    def _network(self, function: Function) -> dict[str, object]:
        return network_view(
            function,
            self._parts.catalog.functions(),
            networks=self._parts.pool.networks,
            account_concurrency=self._settings.invocation.account_concurrency,
        )

    # --- while it runs --------------------------------------------------------------------------

    def _spawn(self, work: Any, name: str) -> "asyncio.Task[None]":
        return self._supervisor.spawn(work, name=name)

    async def _sweep(self) -> None:
        known_s = 0.0
        while True:
            self._parts.intake.sweep()
            self._health.observe()
            self._sources.observe()
            self._parts.journal.stats()
            step_s = self._clock.step_s()
            telemetry.CLOCK_STEP_SECONDS.set(step_s)
            if abs(step_s - known_s) >= _CLOCK_STEP_MIN_S:
                log.warning("clock_stepped", step_s=round(step_s - known_s, 1), since_start_s=round(step_s, 1))
                known_s = step_s
            telemetry.TASKS_FAILED.set(len(self._supervisor.failed()))
            await self._clock.sleep(_SWEEP_S)

    async def _keep_ballast(self) -> None:
        while True:
            await asyncio.to_thread(self._parts.ballast.ensure)
            await self._clock.sleep(_BALLAST_S)

    async def reload(self) -> ReloadResult:
        """Take the file anew: all of it, or, if it holds a mistake, nothing. What runs ends on the old."""
        async with self._reloading:
            if self._draining:
                return self._refused(["the daemon is stopping"])
            self._edits.reading()
            try:
                settings = (
                    await asyncio.to_thread(load, self._config_path, local=self.local, remote=self.allow_remote)
                ).settings
                self._check_reachable(settings)
                self._parts.check_confinement(settings, is_reachable=self._is_reachable)
                catalog = await asyncio.to_thread(read_catalog, settings)
                await check_networks(catalog.functions(), self._parts.pool)
                await self._parts.file_layers.apply(catalog)
                self._parts.file_layers.check(catalog, current=self._parts.catalog)
                prepared = self._sources.prepare(settings)
                self._sources.serve(prepared)
            except ConfigErrors as error:
                return self._refused(str(error).split("\n"))
            except (BridgeError, OSError) as error:
                return self._refused([str(error)])
            result = self._take(settings, catalog)
            await self._sources.replace(prepared)
            await self._parts.tidy(settings)
            await self._parts.map_anew()
            return result

    def _check_reachable(self, settings: Settings) -> None:
        """Refuse what loopback alone may have where the api does not listen there: `listen` counts after a restart."""
        if self._is_reachable and (settings.api.auth == "none" or settings.dev.reset):
            raise ConfigError(
                'api.auth = "none" and dev.reset = true are for loopback only, and until a restart the api listens '
                "where the file had it at the start"
            )

    def _refused(self, mistakes: Sequence[str]) -> ReloadResult:
        telemetry.RELOADS.labels(result="refused").inc()
        log.warning("reload_refused", mistakes=list(mistakes))
        return ReloadResult(ok=False, errors=tuple(mistakes))

    def _take(self, settings: Settings, catalog: FunctionCatalog) -> ReloadResult:
        before, self._settings = self._settings, settings
        register_secrets(settings)
        changed = self._parts.catalog.replace_all(catalog)
        changes = [f"function {name}" for name in sorted(changed)]
        for name in changed:
            self._parts.function_changed(name)
        hidden = self._parts.catalog.hidden()
        changes += [f"function {name}: the file's counts, the one made by Lambda's API is hidden" for name in hidden]
        names = sorted(before.sources.keys() | settings.sources.keys())
        changes += [f"source {name}" for name in names if before.sources.get(name) != settings.sources.get(name)]
        names = sorted(before.mappings.keys() | settings.mappings.keys())
        changes += [f"mapping {name}" for name in names if before.mappings.get(name) != settings.mappings.get(name)]
        self._parts.configure(settings)
        self._api_app.set_rules(self._parts.access_rules(settings))
        names = sorted(before.roles.declared.keys() | settings.roles.declared.keys())
        changes += [
            f"role {each}" for each in names if before.roles.declared.get(each) != settings.roles.declared.get(each)
        ]
        fixed = ("state", "listen", "runtime", "runtimes", "log", "region", "account")
        changes += [
            f"{section}: counts after a restart"
            for section in fixed
            if getattr(before, section) != getattr(settings, section)
        ]
        changes += [f"{name}: {text}" for name, ok, text in self._notices() if not ok]
        self._parts.dispatcher.kick()
        if self._watches:
            self._edits.start()
        telemetry.RELOADS.labels(result="taken").inc()
        log.info("reload_taken", changes=changes)
        return ReloadResult(ok=True, changes=tuple(changes))

    def _notices(self) -> list[Fact]:
        return notices(self._parts.catalog.functions(), self._settings, closed=self._parts.closed_ports)

    def _problems(self) -> list[str]:
        problems = [f"task {name} failed: {reason}" for name, reason in self._supervisor.failed().items()]
        problems += [
            f"mapping {status.mapping.name} failed: {status.reason}"
            for status in self._parts.mappings.status()
            if status.state is MappingState.FAILED and f"mapping:{status.mapping.name}" not in self._supervisor.failed()
        ]
        if self._draining:
            problems.append("draining")
        if self._parts.delivery.unsettled:
            problems.append(f"{self._parts.delivery.unsettled} outcomes wait for the disk")
        return problems

    def _troubles(self) -> list[str]:
        return [
            *self._parts.remote.troubles(self._versions(), told_s=TROUBLE_TOLD_S),
            *self._health.troubles(),
            *self._sources.troubles(),
            *self._parts.roles.troubles(),
            *self._parts.outbox.troubles(after_s=TROUBLE_TOLD_S),
            *self._parts.shipping.troubles(after_s=TROUBLE_TOLD_S),
        ]

    def _facts(self) -> list[tuple[str, bool, str]]:
        stats = self._parts.journal.stats()
        step_s = self._clock.step_s()
        segments = f"{stats.segments} segment{'' if stats.segments == 1 else 's'}"
        journal = f"{segments}, {stats.size_bytes / limits.MIB:.1f} MiB"
        stepped = f"stepped by {step_s:+.1f} s since the start" if abs(step_s) >= 0.1 else "no step since the start"
        if stats.damaged:
            journal += (
                f"; damaged records: {stats.damaged}, the first in {stats.damaged_file} (stop the daemon, "
                "then `bridge doctor` says more)"
            )
        return [
            *confined.findings(self._parts.pool.sandbox_level(), self._parts.pool.sandbox_facts()),
            ("journal", not stats.damaged, journal),
            ("clock", abs(step_s) < 1, stepped),
            *self._notices(),
            *lost_functions(self._parts.catalog.functions()),
            *self._parts.pool.networks.facts(self._versions()),
            *self._parts.runtimes.facts(self._versions()),
            *self._health.facts(),
            *self._sources.facts(),
            *self._parts.roles.facts(),
            *((f"target {name}", ok, detail) for name, ok, detail in self._parts.outbox.facts()),
            *self._parts.shipping.facts(),
        ]

    def _versions(self) -> list[FunctionVersion]:
        return [function.latest for function in self._parts.catalog.functions()]

    def _status(self) -> dict[str, object]:
        stats = self._parts.journal.stats()
        return {
            "uptime_s": round(self._clock.time() - self._started_at, 1),
            "listeners": {
                listener.name: {"port": listener.port, "connections": listener.connections}
                for listener in (self._public, self._api)
            },
            "sources": self._sources.status(),
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
        self._parts.shipping.closes_by = began + grace_s
        log.info("daemon_draining", grace_s=grace_s)

        def left(reserve_s: float = 0.0) -> float:
            return max(0.0, grace_s - reserve_s - (self._clock.monotonic() - began))

        self._sources.refuse()
        self._edits.stop()
        with contextlib.suppress(TimeoutError):  # what a reload that runs has begun to serve is stopped as well
            async with asyncio.timeout(min(_RELOAD_CLOSE_S, left(2.0))), self._reloading:
                pass
        self._api_app.close()
        cut = await self._drain(left)
        await self._parts.outbox.drain(deadline_s=min(_OUTBOX_CLOSE_S, left(1.8)))
        await self._public.close(left(1.5))
        await self._api.close(min(1.0, left(1.0)))
        await self._supervisor.close()
        await self._parts.dispatcher.close()
        await self._exit.aclose()
        log.info("daemon_stopped", cut_off=cut, took_s=round(self._clock.monotonic() - began, 3))

    async def _drain(self, left: Callable[[float], float]) -> int:
        """Let everything that takes events in end; returns how many invocations were cut off.

        A part that fails is told of: the others, and whoever closes them, must not pay for a bug of one.
        """
        parts = {
            "replays": self._parts.replays.close(deadline_s=min(_JOBS_CLOSE_S, left(2.0))),
            "redrives": self._parts.redrives.close(deadline_s=min(_JOBS_CLOSE_S, left(2.0))),
            "dispatcher": self._parts.dispatcher.drain(deadline_s=left(2.0)),
            "mappings": self._parts.mappings.drain(deadline_s=left(2.0)),
            "sources": self._sources.drain(deadline_s=left(2.0)),
        }
        ended = dict(zip(parts, await asyncio.gather(*parts.values(), return_exceptions=True), strict=True))
        for part, result in ended.items():
            if isinstance(result, BaseException):
                log.error("drain_failed", part=part, exc_info=result)
        cut = ended["dispatcher"]
        return cut if isinstance(cut, int) else 0
