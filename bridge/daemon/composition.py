"""Builds every part below the listeners and opens them in order; the only place that names adapters."""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog

from bridge.api.app import AccessRules
from bridge.api.awslambda.control import MadeFunctions
from bridge.api.awslambda.made_layers import MadeLayers
from bridge.api.awslambda.mapped import MadeMappings
from bridge.api.awslambda.sealing import Sealing
from bridge.aws.kms import KmsKeys
from bridge.config.access import access_keys, hidden_ports, key_file
from bridge.config.connections import connection_values
from bridge.config.functions import function_specs
from bridge.config.mappings import mapping_values
from bridge.config.runtimes import interpreters
from bridge.config.settings import Settings
from bridge.core import limits
from bridge.core.errors import StoreError
from bridge.core.ports import Clock
from bridge.core.spaces import Space
from bridge.daemon.aws import AwsReach
from bridge.daemon.code import FileCode
from bridge.daemon.confinement import check_confinement
from bridge.daemon.layers import FileLayers
from bridge.daemon.log_shipping import LogShipping
from bridge.daemon.looks import look
from bridge.daemon.masking import register_secrets
from bridge.daemon.mqtt import MqttMaker
from bridge.daemon.networks import check_networks
from bridge.daemon.permits import implied_statements
from bridge.daemon.push import MAKERS
from bridge.daemon.role_checks import log_check, mapping_check
from bridge.daemon.role_credentials import RoleCredentials
from bridge.daemon.roles import Roles
from bridge.daemon.schedules import ScheduleMaker
from bridge.daemon.streams import Streams
from bridge.daemon.targets import Targets
from bridge.destinations.spill import Spill
from bridge.invokers.remote import RemoteFunctions
from bridge.invokers.runtimes import Runtimes
from bridge.invokers.service import FunctionService
from bridge.journal.journal import SegmentJournal
from bridge.journal.outcomes import OutcomesLog
from bridge.journal.retention import Retention
from bridge.pipeline.delivery import AsyncDelivery
from bridge.pipeline.dispatcher import Dispatcher
from bridge.pipeline.intake import JournalIntake
from bridge.pipeline.mappings import MappingSupervisor
from bridge.pipeline.outbox import OutboxSender
from bridge.pipeline.outcomes import AsyncOutcomes, OutboxDestination
from bridge.pipeline.redrive import Redrives
from bridge.pipeline.replay import Replays, StreamParts
from bridge.pipeline.supervision import Tasks
from bridge.registry.attachments import Attachments
from bridge.registry.catalog import FunctionCatalog
from bridge.registry.interpreters import reachable
from bridge.registry.secrets import Seal
from bridge.runtime.logs import FunctionLogs
from bridge.runtime.pool import WorkerPool
from bridge.sources.pull.backlogs import JournalStreams
from bridge.sources.pull.local import JournalLocalStreams
from bridge.store.ballast import Ballast
from bridge.store.folder import StateFolder
from bridge.store.functions import SqliteFunctions
from bridge.store.layers import SqliteLayers
from bridge.store.made_mappings import SqliteMadeMappings
from bridge.store.mqtt_sessions import FileMqttSessions
from bridge.store.packages import PackageStore
from bridge.store.state import open_state
from bridge.util import logs as log_setup

log = structlog.get_logger("bridge.daemon")

_PACKAGES: Final = Path(sys.prefix) / "share" / "bridge" / "packages"

Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]


class Parts:
    """Everything a daemon consists of but its listeners, as attributes.

    Args:
        settings: what is built from; later settings go through `configure`.
        clock: every part's time.
        spawn: starts a task whose failure is seen.
        tasks: keeps tasks running.
        is_local: pull sources are embedded streams, and no remote function is invoked unless that is allowed.
        asks_before_remote: mappings join a consumer group with members from elsewhere, and remote functions are
            invoked, only where that is allowed.
        allow_remote: it is, for all of them.
        fail: ends the process at once: the disk can no longer be trusted.
        exit_stack: closes what was opened, in reverse.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock,
        spawn: Spawn,
        tasks: Tasks,
        is_local: bool,
        asks_before_remote: bool,
        allow_remote: bool,
        fail: Callable[[Exception], None],
        exit_stack: contextlib.AsyncExitStack,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._spawn = spawn
        self._tasks = tasks
        self._is_local = is_local
        self._asks_before_remote = asks_before_remote
        self._allow_remote = allow_remote
        self._fail = fail
        self._exit = exit_stack
        self._mapping = asyncio.Lock()

    async def open(self) -> None:
        """Build and open everything, in order.

        Raises:
            ConfigError: a folder cannot be read.
            StoreBusy, StoreError: the state folder cannot be had.
        """
        await self._open_folder()
        # The disk and the first worker are waited for together: that is most of a start.
        ends = await asyncio.gather(self._open_store(), self._open_runtime(), return_exceptions=True)
        for end in ends:
            if end is not None:
                raise end
        await self._open_made()
        await self._open_pipeline()

    def configure(self, settings: Settings) -> None:
        """Take the limits of new settings."""
        self._settings = settings
        self._configure_service()
        self.attached.policies.set_implied(implied_statements(settings))
        self.intake.set_window(deduplication_window(settings))
        self.aws.configure(settings)
        self.roles.configure(settings)
        self.role_credentials.configure(settings)
        self.code.configure(settings)
        self.shipping.configure(settings)
        self.streams.configure(
            connection_values(settings),
            kinds={name: source.form for name, source in settings.sources.items()},
            egress=settings.egress.value(),
        )
        self.targets.configure(settings)
        self.retention.configure(
            retention_s=settings.journal.retention_days * 86_400,
            retention_bytes=int(settings.journal.retention_gb * limits.GIB),
        )

    def _configure_service(self) -> None:
        self.service.configure(
            account_concurrency=self._settings.invocation.account_concurrency,
            reserved=self.catalog.reserved(),
            sync_wait_s=self._settings.invocation.sync_wait_s,
            provisioned=self.catalog.provisioned(),
        )

    def check_confinement(self, settings: Settings, *, is_reachable: bool) -> None:
        """Refuse settings that ask for more than confines workers here. Raises ConfigError."""
        check_confinement(
            settings, level=self.pool.sandbox_level(), facts=self.pool.sandbox_facts(), is_reachable=is_reachable
        )

    def access_rules(self, settings: Settings) -> AccessRules:
        """Return who may call Lambda's API: whoever has a key of the file, and functions with theirs."""
        return AccessRules(
            keys=access_keys(settings),
            asks=settings.api.auth != "none",
            account=settings.account,
            region=settings.region,
            minted=self.role_credentials.keys.get,
            role_of=self.roles.known,
        )

    async def map_anew(self) -> None:
        """Have the mappings run that the file in force declares, and those that Lambda's API made."""
        async with self._mapping:  # whoever comes second sees what the first one left
            await self.mappings.configure([*mapping_values(self._settings), *self.made_mappings.values()])

    async def tidy(self, settings: Settings) -> None:
        """Forget what was kept of sources that have left the file; a disk that takes nothing leaves it for later."""
        try:
            await self.state.schedules.keep(settings.schedules.keys())
        except StoreError as error:
            log.warning("schedules_not_tidied", error=str(error))

    async def _open_folder(self) -> None:
        self.folder = StateFolder(self._settings.state)
        await asyncio.to_thread(self.folder.open)
        self._exit.callback(self.folder.close)
        log_setup.register_secret(self.folder.token)
        self.aws = AwsReach(self._settings, clock=self._clock)
        self._exit.push_async_callback(self.aws.close)
        self.code = FileCode(self._settings, aws=self.aws)
        self.outcomes = OutcomesLog(
            folder=self.folder.partition / "outcomes",
            clock=self._clock,
            retention_s=self._settings.journal.retention_days * 86_400,
            on_fatal=self._fail,
        )

    async def _open_store(self) -> None:
        settings = self._settings.journal
        partition = self.folder.partition
        self.ballast = Ballast(partition / "ballast", size_bytes=settings.ballast_mb * limits.MIB)
        await asyncio.to_thread(self.ballast.ensure)
        self.state = await open_state(partition, release_ballast=self.ballast.release, on_failure=self._fail)
        self._exit.push_async_callback(self.state.close)
        await self.outcomes.open()
        self._exit.push_async_callback(self.outcomes.close)
        self.journal = SegmentJournal(
            folder=partition / "journal",
            segment_bytes=settings.segment_mb * limits.MIB,
            low_water_bytes=settings.low_water_mb * limits.MIB,
            on_fatal=self._fail,
        )
        await self.journal.open()
        self._exit.push_async_callback(self.journal.close)

    async def _open_runtime(self) -> None:
        settings = self._settings
        self.catalog = await asyncio.to_thread(read_catalog, settings)
        self.roles = Roles(settings, aws=self.aws, catalog=self.catalog, clock=self._clock)
        self.interpreters = await asyncio.to_thread(interpreters, settings)
        register_secrets(settings)
        self.logs = FunctionLogs(
            self.folder.logs, max_bytes_per_function=settings.runtime.log_mb_per_function * limits.MIB
        )
        self.closed_ports = hidden_ports(settings) if settings.runtime.sandbox != "basic" else ()
        self.shipping = LogShipping(settings, logs=self.logs, aws=self.aws, clock=self._clock, roles=self.roles)
        self._exit.push_async_callback(self.shipping.close)
        packages = settings.runtime.packages or (_PACKAGES if _PACKAGES.is_dir() else None)
        self.pool = WorkerPool(
            run_folder=self.folder.run,
            logs=self.logs,
            clock=self._clock,
            workers_max=settings.runtime.workers_max,
            idle_s=settings.runtime.idle_s,
            sandbox=settings.runtime.sandbox,
            packages=packages,
            deny_paths=(self.folder.path, key_file(settings)),
            code_store=self.folder.packages,
            deny_ports=self.closed_ports,
            region=settings.region,
            interpreters=reachable(self.interpreters),
        )
        self.role_credentials = RoleCredentials(
            settings, roles=self.roles, aws=self.aws, clock=self._clock, renew=self.pool.credentials.renew
        )
        self.roles.replace = self.pool.credentials.renew
        self.pool.credentials.source = self.role_credentials.variables
        self.logs.may_write = log_check(self.roles, region=settings.region, account=settings.account)
        self.pool.trace = self._trace
        await self.pool.open()
        self._exit.push_async_callback(self.pool.close)
        self.check_confinement(settings, is_reachable=not settings.listen.api.is_loopback)
        await check_networks(self.catalog.functions(), self.pool)
        # Where a file is tried, nothing elsewhere is invoked by accident.
        is_allowed = self._allow_remote or not (self._asks_before_remote or self._is_local)
        self.remote = RemoteFunctions(self.aws.clients, clock=self._clock, is_allowed=is_allowed)
        self.remote.trace = self._trace
        self._exit.push_async_callback(self.remote.close)
        self.runtimes = Runtimes(local=self.pool, remote=self.remote)
        self.service = FunctionService(
            catalog=self.catalog,
            runtime=self.runtimes,
            clock=self._clock,
            outcomes=self.outcomes,
            hindrance=self.runtimes.hindrance,
        )

    def _trace(self, request_id: str, name: str) -> str:
        return self.attached.recursion.trace(request_id, name, now=self._clock.time())

    async def _open_made(self) -> None:
        """Put what Lambda's API made beside what the file declares."""
        settings = self._settings
        functions = await SqliteFunctions.open(
            self.folder.shared / "catalog.db", release_ballast=self.ballast.release, on_failure=self._fail
        )
        self._exit.push_async_callback(functions.close)
        self._mapping_store = SqliteMadeMappings(functions.database)
        home = Space(settings.account, settings.region)
        self.attached = Attachments(functions.attachments, home)
        await self.attached.open()
        self.made = MadeFunctions(
            runtimes=self.interpreters,
            store=functions,
            layers=MadeLayers(SqliteLayers(functions.database)),
            packages=PackageStore(self.folder.packages),
            sealing=Sealing(
                Seal(key_file(settings)),
                arn_of=home.arn,
                clock=self._clock,
                kms=KmsKeys(self.aws.clients, find=self.aws.reaching),
            ),
            catalog=self.catalog,
            home=home,
            clock=self._clock,
            changed=self.function_changed,
            spawn=self._spawn,
            attached=self.attached,
        )
        await self.made.open()
        await self.roles.open()
        self.file_layers = FileLayers(self.made)
        await self.file_layers.apply(self.catalog)
        await self.pool.networks.prepare(function.latest for function in self.catalog.functions())

    def provision(self) -> None:
        """Start provisioned workers, once the api that they may call listens."""
        for function in self.catalog.functions():
            if function.provisioned:
                self._provision(function.name)

    def function_changed(self, name: str) -> None:
        """End the workers of what a function was, and count its limits anew."""
        function = self.catalog.get(name) if name in self.catalog else None
        if function is None:
            self.runtimes.retire(name, keep_revision=None)
        else:
            self.runtimes.retire(name, keep_revision=function.latest.revision, also_keep=function.revisions)
        self._provision(name)
        self._configure_service()
        self.dispatcher.kick()
        self.mappings.kick()
        if function is not None and any(each.role for each in (function.latest, *function.versions.values())):
            self._roles_changed()  # mappings ask another role

    def _roles_changed(self) -> None:
        self._spawn(self.map_anew(), "roles-changed")

    def _provision(self, name: str) -> None:
        """Have the workers that are provisioned of a function, and no others."""
        function = self.catalog.get(name) if name in self.catalog else None
        warm = {} if function is None else function.warm()
        versions = {} if function is None else function.versions
        self.pool.provisioned.configure(name, [(versions[number], count) for number, count in warm.items()])

    async def _open_pipeline(self) -> None:
        settings, state = self._settings, self.state
        self._open_streams()
        ends = AsyncOutcomes(
            outbox=state.outbox,
            spill=Spill(state.dead_letters),
            resolve=self.service.resolve,
            added=self.outbox.added,
            clock=self._clock,
        )
        self.delivery = AsyncDelivery(
            outcomes=self.outcomes,
            parked=state.parked,
            dead_letters=state.dead_letters,
            destination=ends,
            successes=ends,
            clock=self._clock,
        )
        self.dispatcher = Dispatcher(
            service=self.service,
            delivery=self.delivery,
            journal=self.journal,
            outcomes=self.outcomes,
            parked=state.parked,
            dead_letters=state.dead_letters,
            marks=state.marks,
            clock=self._clock,
            lane_events_max=settings.journal.lane_events_max,
            lane_bytes_max=int(settings.journal.lane_gb_max * limits.GIB),
        )
        self.intake = JournalIntake(
            journal=self.journal, dispatcher=self.dispatcher, clock=self._clock, streams=self.journal_streams
        )
        self.replays = Replays(
            journal=self.journal,
            outcomes=self.outcomes,
            dead_letters=state.dead_letters,
            jobs=state.jobs,
            invoker=self.service,
            clock=self._clock,
            spawn=self._spawn,
            streams=StreamParts(mappings=self.mappings, slots=self.service, spill=Spill(state.dead_letters)),
        )
        self.redrives = Redrives(
            dead_letters=state.dead_letters,
            outcomes=self.outcomes,
            jobs=state.jobs,
            clock=self._clock,
            spawn=self._spawn,
            wake=self.dispatcher.due,
        )
        self.retention = Retention(
            self.journal,
            clock=self._clock,
            retention_s=settings.journal.retention_days * 86_400,
            retention_bytes=int(settings.journal.retention_gb * limits.GIB),
            unfinished=self.dispatcher.unfinished,
            streams=self.journal_streams,
            release_ballast=self.ballast.release,  # pruning makes room, and needs some first
        )
        self.makers = {
            **MAKERS,
            "mqtt": MqttMaker(state.dead_letters, FileMqttSessions(self.folder.partition / "mqtt")),
            "schedule": ScheduleMaker(self.journal, state.schedules),
        }
        self.configure(settings)
        await self.tidy(settings)
        await self.outbox.open()
        await self.dispatcher.open([function.name for function in self.catalog.functions()])
        await self.intake.open(window_s=deduplication_window(settings))
        await self.made_mappings.open()
        await self.mappings.open([*mapping_values(settings), *self.made_mappings.values()])
        self.roles.changed = self._roles_changed
        await self.replays.open()
        await self.redrives.open()

    def _open_streams(self) -> None:
        settings, state = self._settings, self.state
        spill = Spill(state.dead_letters)
        self.targets = Targets(
            settings, aws=self.aws, functions=self.catalog.functions, intake=lambda: self.intake, clock=self._clock,
            roles=self.roles,
            loops=self.attached.recursion,
        )  # fmt: skip
        self._exit.push_async_callback(self.targets.close)
        self.outbox = OutboxSender(
            store=state.outbox,
            dead_letters=state.dead_letters,
            transports=self.targets,
            outcomes=self.outcomes,
            clock=self._clock,
        )
        self.journal_streams = JournalStreams(
            self.journal,
            state.stream_marks,
            events_max=settings.journal.lane_events_max,
            bytes_max=int(settings.journal.lane_gb_max * limits.GIB),
        )
        self.local_streams = JournalLocalStreams(self.journal_streams, clock=self._clock)
        self.streams = Streams(
            self.journal_streams,
            spill=spill,
            clock=self._clock,
            region=settings.region,
            account=settings.account,
            outbox=partial(
                OutboxDestination, outbox=state.outbox, added=self.outbox.added, role_of=self.roles.arn_of_target
            ),
            aws=self.aws,
            roles=self.roles,
        )
        self.dead_letter_queues = self.streams.dead_letter_queues(self.service)
        self.mappings = MappingSupervisor(
            slots=self.service,
            streams=self.streams,
            spill=spill,
            journal=self.journal,
            states=state.mapping_states,
            tasks=self._tasks,
            clock=self._clock,
            asks_before_remote=self._asks_before_remote,
            allow_remote=self._allow_remote,
            loops=self.attached.recursion,
        )
        self.made_mappings = MadeMappings(
            store=self._mapping_store,
            clusters=lambda: self.streams.connections,
            look=partial(look, self.streams),
            changed=self.map_anew,
            refused=mapping_check(self.roles, region=settings.region, account=settings.account),
            is_busy=self.mappings.is_busy,
            clock=self._clock,
        )


def read_catalog(settings: Settings) -> FunctionCatalog:
    """Return the functions of a file; reads their folders (blocking). Raises ConfigError."""
    return FunctionCatalog.from_specs(function_specs(settings), region=settings.region, account=settings.account)


def deduplication_window(settings: Settings) -> float:
    """Return how long deliveries are remembered, in seconds: as the routes ask, and records of destinations."""
    routes = (source.deduplicate_s for source in settings.webhooks.values())
    return float(max([limits.DEDUPLICATION_WINDOW_DEFAULT_S, *routes]))
