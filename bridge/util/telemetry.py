"""Every metric of the daemon, in one registry of our own, named once.

Labels hold only what the configuration bounds (functions, sources, listeners, replays) or a closed set of words
(statuses, reasons, states): never an id, a key or a path. Hot paths keep the child that ``.labels(...)`` returns.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

__all__ = [
    "ARCHIVE_DROPPED",
    "BATCHES",
    "CLOCK_STEP_SECONDS",
    "CLOUDWATCH_EVENTS",
    "DEAD_LETTERS",
    "DEAD_LETTER_ERRORS",
    "DESTINATION_DELIVERY_FAILURES",
    "DUPLICATES",
    "EVENTS_ACCEPTED",
    "EVENTS_REFUSED",
    "EVENT_AGE_SECONDS",
    "HTTP_CONNECTIONS",
    "HTTP_REQUESTS",
    "INVOCATIONS",
    "INVOCATION_SECONDS",
    "JOURNAL_APPENDS",
    "JOURNAL_BYTES",
    "JOURNAL_COMMITS",
    "JOURNAL_COMMIT_SECONDS",
    "JOURNAL_DAMAGED",
    "LANE_WAITING",
    "MAPPING_BEHIND",
    "MQTT_LEFT",
    "MQTT_NOT_JSON",
    "PARKED",
    "PROVISIONED",
    "RECORDS",
    "RECORDS_LOST",
    "RECURSIONS_DROPPED",
    "REGISTRY",
    "RELOADS",
    "REPLAYED",
    "RETRIES",
    "RUNNING",
    "SANDBOX_LEVEL",
    "SCHEDULE_MISSED",
    "SPILLED",
    "STORE_FULL",
    "TARGET_SENT",
    "TARGET_WAITING",
    "TASKS_FAILED",
    "WORKERS",
    "WORKER_STARTS",
    "render",
]

REGISTRY = CollectorRegistry()
"""The daemon's own registry: the process-wide default one may hold other people's metrics."""

_COMMIT_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0)
_INVOCATION_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0, 10.0, 60.0, 300.0, 900.0)
_AGE_BUCKETS = (0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0, 21600.0)


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(name, text, labels, registry=REGISTRY)


def _gauge(name: str, text: str, *labels: str) -> Gauge:
    return Gauge(name, text, labels, registry=REGISTRY)


def _histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return Histogram(name, text, labels, registry=REGISTRY, buckets=buckets)


# --- intake ---------------------------------------------------------------------------------------------------------
EVENTS_ACCEPTED = _counter(
    "bridge_events_accepted_total", "Events written to the journal and acknowledged.", "source", "type"
)
EVENTS_REFUSED = _counter("bridge_events_refused_total", "Events turned away before the journal.", "source", "reason")
DUPLICATES = _counter(
    "bridge_events_duplicates_total", "Deliveries recognised as ones the journal already holds.", "source"
)
SCHEDULE_MISSED = _counter(
    "bridge_schedule_ticks_missed_total",
    "Ticks of schedules that no event was stored for, as their policy says.",
    "source",
)
MQTT_LEFT = _counter(
    "bridge_mqtt_messages_left_total",
    "Messages acknowledged and not stored: of no filter, further copies by overlapping ones, unwanted retained ones.",
    "source",
)
MQTT_NOT_JSON = _counter(
    "bridge_mqtt_messages_not_json_total", "Messages whose payload is no JSON and was stored as base64.", "source"
)

# --- invocations ----------------------------------------------------------------------------------------------------
INVOCATIONS = _counter("bridge_invocations_total", "Invocations that ended, by status.", "function", "status")
INVOCATION_SECONDS = _histogram(
    "bridge_invocation_duration_seconds", "Time from start to end of one invocation.", _INVOCATION_BUCKETS, "function"
)
EVENT_AGE_SECONDS = _histogram(
    "bridge_event_age_seconds", "Age of an event when its first attempt starts.", _AGE_BUCKETS, "function"
)
RETRIES = _counter("bridge_retries_total", "Attempts after the first.", "function")
DEAD_LETTERS = _counter(
    "bridge_dead_letters_total", "Events given up on and kept as dead letters.", "function", "condition"
)

RECURSIONS_DROPPED = _counter(
    "bridge_recursive_invocations_dropped_total",
    "Invocations and messages not run because their function was too often in what led to them.",
    "function",
)

# --- targets of records: AWS's metrics DestinationDeliveryFailures and DeadLetterErrors, but that nothing is dropped --
DESTINATION_DELIVERY_FAILURES = _counter(
    "bridge_destination_delivery_failures_total", "Tries to send a record to a destination that failed.", "function"
)
DEAD_LETTER_ERRORS = _counter(
    "bridge_dead_letter_errors_total", "Tries to send an event to a dead-letter target that failed.", "function"
)
TARGET_SENT = _counter("bridge_target_records_total", "Records that targets took.", "function", "kind")
TARGET_WAITING = _gauge("bridge_target_waiting_records", "Records that wait for a target to take them.", "target")

# --- lanes and workers ----------------------------------------------------------------------------------------------
PARKED = _gauge("bridge_parked_events", "Events parked until their next attempt is due.", "function")
LANE_WAITING = _gauge("bridge_lane_waiting_events", "Events in line for a free invocation.", "function")
RUNNING = _gauge("bridge_running_invocations", "Invocations running now.", "function")
WORKERS = _gauge("bridge_workers_processes", "Worker processes, by state.", "function", "state")
PROVISIONED = _counter(
    "bridge_provisioned_invocations_total", "Invocations that ran on provisioned concurrency.", "function"
)
SPILLED = _counter(
    "bridge_provisioned_spillover_invocations_total",
    "Invocations beyond provisioned concurrency, which ran on demand.",
    "function",
)
WORKER_STARTS = _counter("bridge_worker_starts_total", "Worker processes started.", "function")

CLOUDWATCH_EVENTS = _counter(
    "bridge_cloudwatch_log_events_total",
    "Log events for CloudWatch Logs: sent, or dropped because the buffer was full, it refused them, or a stop came.",
    "outcome",
)

# --- journal and store ----------------------------------------------------------------------------------------------
JOURNAL_BYTES = _gauge("bridge_journal_size_bytes", "Bytes the journal's segments take on disk.")
JOURNAL_DAMAGED = _gauge(
    "bridge_journal_damaged_records", "Records that readers found damaged on disk since the start."
)
JOURNAL_APPENDS = _counter("bridge_journal_appends_total", "Records appended to the journal.")
JOURNAL_COMMITS = _counter("bridge_journal_commits_total", "Group commits: one sync to disk each.")
JOURNAL_COMMIT_SECONDS = _histogram(
    "bridge_journal_commit_duration_seconds", "Time one group commit takes, sync included.", _COMMIT_BUCKETS
)
ARCHIVE_DROPPED = _counter("bridge_archive_dropped_events_total", "Archived events dropped to keep within retention.")
STORE_FULL = _gauge("bridge_store_full_state", "1 while the store refuses new events for want of room.")
CLOCK_STEP_SECONDS = _gauge("bridge_clock_step_seconds", "Size of the last step seen in the wall clock.")

# --- event source mappings ------------------------------------------------------------------------------------------
BATCHES = _counter("bridge_batches_total", "Batches that were tried, by how it ended.", "mapping", "status")
RECORDS = _counter("bridge_records_total", "Records of streams that ended, by outcome.", "mapping", "outcome")
RECORDS_LOST = _counter(
    "bridge_retention_losses_total", "How often retention took records of a shard before they were read.", "mapping"
)
MAPPING_BEHIND = _gauge("bridge_mapping_behind_records", "Records behind a mapping's marks.", "mapping")

# --- replays --------------------------------------------------------------------------------------------------------
REPLAYED = _counter("bridge_replayed_events_total", "Replayed events that settled, by status.", "replay", "status")

# --- the daemon itself ----------------------------------------------------------------------------------------------
HTTP_REQUESTS = _counter("bridge_http_requests_total", "HTTP requests answered.", "listener", "status")
HTTP_CONNECTIONS = _gauge("bridge_http_connections_open", "HTTP connections open now.", "listener")
TASKS_FAILED = _gauge("bridge_tasks_failed_state", "Background tasks that failed and are not running.")
SANDBOX_LEVEL = _gauge("bridge_sandbox_level_state", "1 for the isolation level in force.", "level")
RELOADS = _counter("bridge_reloads_total", "Configuration reloads, by result.", "result")


def render() -> tuple[bytes, str]:
    """Everything in the registry in Prometheus text format, and that text's content type."""
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST
