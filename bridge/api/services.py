"""What the api is given: ports and a few callables, in one frozen value that the daemon builds."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bridge.api.awslambda.control import MadeFunctions
from bridge.api.awslambda.mapped import MadeMappings
from bridge.api.awslambda.roles import RoleFinder
from bridge.api.awslambda.uploads import CodeSource
from bridge.core import limits
from bridge.core.dead_letter_queues import DeadLetterQueues
from bridge.core.errors import InvokeError
from bridge.core.function import Function, FunctionVersion, Warmth
from bridge.core.invocation import Condition
from bridge.core.outcome import Outbox
from bridge.core.ports import Clock, DeadLetters, Intake, Invoker, Jobs, Journal, Lanes, Outcomes, ParkedStore
from bridge.core.push import PushSources
from bridge.core.record import Record
from bridge.core.sources import LocalStreams, Mappings, RecordReader
from bridge.pipeline.outbox import OutboxSender
from bridge.pipeline.redrive import Redrives
from bridge.pipeline.replay import Replays
from bridge.registry.attachments import Attachments


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadResult:
    """What came of a reload: either all of it counts from now on, or nothing changed."""

    ok: bool
    changes: tuple[str, ...] = ()
    """One line each; empty when the file says what was in force already."""
    errors: tuple[str, ...] = ()
    """Every mistake, `file:line: key: what is wrong`."""


class Logs(Protocol):
    """Where a function's log lines are read."""

    def tail(
        self, *functions: str, lines: int, follow: bool, stream: str = ""
    ) -> AsyncIterator[tuple[float, str, str]]:
        """Yield (epoch seconds, stream, text) of the last `lines` lines of functions, then, if `follow`, new ones.

        Of all streams, or of those whose name begins with `stream`.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything behind the admin endpoints."""

    journal: Journal
    outcomes: Outcomes
    parked: ParkedStore
    dead_letters: DeadLetters
    outbox: Outbox
    sender: OutboxSender
    jobs: Jobs
    replays: Replays
    redrives: Redrives
    lanes: Lanes
    invoker: Invoker
    intake: Intake
    refuse: Callable[[Record, Condition, InvokeError], Awaitable[None]]
    """Keeps an asynchronous event that is not run: durable when it returns, raises StoreError."""
    logs: Logs
    functions: Callable[[], Sequence[Function]]
    """All of them, by name."""
    function: Callable[[str], Function]
    """Returns the one of a name; raises FunctionNotFound."""
    reload: Callable[[], Awaitable[ReloadResult]]
    readiness: Callable[[], Sequence[str]]
    """What keeps the daemon from being ready; empty when it is."""
    facts: Callable[[], Sequence[tuple[str, bool, str]]]
    """(name, is it as it should be, what is in force) for `bridge doctor`."""
    version: str
    clock: Clock
    troubles: Callable[[], Sequence[str]] = lambda: ()
    """What somebody should look at and does not keep the daemon from taking events: mappings that cannot go on."""
    mappings: Mappings
    streams: LocalStreams
    sources: PushSources
    readers: Callable[[Record], Sequence[RecordReader]]
    """Which mappings read a stored record, and whether they are done with it."""
    attached: Attachments = field(default_factory=Attachments)
    """What hangs on functions; left out: nothing does, and nothing is kept."""
    url_address: Callable[[str, str], str] = lambda url_id, region: f"http://{url_id}.lambda-url.{region}.localhost/"
    """Where the function URL of an id is reached, for a region."""
    made: MadeFunctions | None = None
    """Functions that Lambda's API makes; None: it makes none."""
    made_mappings: MadeMappings | None = None
    """Event source mappings that Lambda's API makes; None: it makes none."""
    roles: RoleFinder | None = None
    """Execution roles; None: nothing is asked of any."""
    network: Callable[[Function], Mapping[str, object]] = lambda _: {}
    """What is shown of a function's network; empty: it asks for none of its own."""
    has_memory_steps: Callable[[], bool] = lambda: False
    """Whether memory is counted as Lambda once did, in steps of 64 MB."""
    may_reset: Callable[[], bool] = lambda: False
    """Whether what Lambda's API made may be cleared, all of it at once."""
    code: CodeSource | None = None
    """Fetches code that is not in a request; None: it has to be."""
    queues: DeadLetterQueues | None = None
    """Dead-letter queues of SQS; None: none are reached."""
    async_payload_max_bytes: int = limits.ASYNC_PAYLOAD_MAX_BYTES
    account_concurrency: Callable[[], int] = lambda: limits.ACCOUNT_CONCURRENCY_DEFAULT
    """Invocations at once of all functions."""
    warmth: Callable[[FunctionVersion], Warmth] = lambda _: Warmth()
    """How far the provisioned concurrency of a version is."""
    sandbox_level: Callable[[FunctionVersion], str] = lambda _: "basic"
    """How far the workers of a version are confined."""
    status: Callable[[], Mapping[str, object]] = field(default=dict)
    """Further sections of `GET status`: listeners, workers, journal, tasks."""
