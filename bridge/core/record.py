"""The stored form of an event: what the journal holds and the lanes carry."""

from dataclasses import dataclass

from bridge.core.invocation import InvocationType


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One event as a push source stored it. Frozen; `position` is known once the journal has it."""

    id: str
    """Request id: lower-case UUID text; what the caller got at 202 and the handler sees."""
    source: str
    """Name of the route (`[sources.X]`), or `invoke` for direct invocations."""
    function: str
    """Target as written: `name[:qualifier]`. Empty where only mappings read the source."""
    invocation_type: InvocationType
    received_at: float
    """Wall clock, epoch seconds, millisecond precision; never goes backwards within a journal."""
    payload: bytes
    """The serialised Lambda event: forwarded as it is, never re-serialised."""
    client_context: bytes = b""
    delivery_id: str = ""
    """The sender's own delivery id (de-duplication), empty when it gave none."""
    key: bytes = b""
    """What its source groups it by where the event does not say it (an MQTT topic): 0..255 bytes."""
    position: int = -1
    """Journal position (segment number << 32 | byte offset); -1 before it is stored."""

    @property
    def lane(self) -> str:
        """The lane that runs it: the function's name without the qualifier; empty if never run by itself."""
        if self.invocation_type is not InvocationType.EVENT:
            return ""
        return self.function.partition(":")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class DamagedRecord(Record):
    """A stored record whose bytes on disk do not fit their checksum any more: never run, it becomes a dead letter.

    Only id, received_at and invocation type are sure (the index has them). `function` and `source` are what could
    still be read and fitted the index, else empty; the payload is what the disk gives, right or wrong.
    """

    damage: str
    """One line: which file, where, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """An asynchronous event that waits for its next attempt, with everything needed to run it."""

    record: Record
    attempts: int
    """Attempts that ran and counted so far."""
    due_at: float
    """Wall clock, epoch seconds."""
    delay_s: float
    """The delay it was parked with: on load, wait = clamp(due_at - now, 0, delay_s)."""
    first_attempt_at: float = 0.0
    backoffs: int = 0
    """Throttles and system errors in a row (not attempts)."""
    error_type: str = ""
    error_message: str = ""
    response: bytes = b""
    redrive: bool = False
    """True when it was a dead letter before: on failure that dead letter is updated, not doubled."""
    queue: str = "default"
    """Dead-letter queue it came from or goes to."""
    item_failures: bool = False
    """As of the dead letter it was: an answer that names failed records is a function error."""
    job: str = ""
    """Name of the redrive that put it here."""
