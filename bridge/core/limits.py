"""Every number that bounds a queue, a loop or a payload, with its unit and where it comes from."""

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

# --- Lambda's own limits (docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html) ---
SYNC_PAYLOAD_MAX_BYTES: Final = 6 * MIB
"""Largest serialised event of a RequestResponse invocation."""
SYNC_RESPONSE_MAX_BYTES: Final = 6 * MIB + 100
"""Largest serialised answer: AWS allows 100 bytes more than the 6 MiB of a request (recorded)."""
ASYNC_PAYLOAD_MAX_BYTES: Final = 1 * MIB
"""Default largest serialised event of an Event invocation; a setting (256 KiB until October 2025)."""
CLIENT_CONTEXT_MAX_BYTES: Final = 3583
TIMEOUT_DEFAULT_S: Final = 3
TIMEOUT_MIN_S: Final = 1
TIMEOUT_MAX_S: Final = 900
MEMORY_DEFAULT_MB: Final = 128
MEMORY_MIN_MB: Final = 128
MEMORY_MAX_MB: Final = 10_240
LEGACY_MEMORY_MAX_MB: Final = 3_008
LEGACY_MEMORY_STEP_MB: Final = 64
"""Lambda's rule until December 2020: memory in such steps, up to that."""
EPHEMERAL_STORAGE_DEFAULT_MB: Final = 512
EPHEMERAL_STORAGE_MIN_MB: Final = 512
EPHEMERAL_STORAGE_MAX_MB: Final = 10_240
ENVIRONMENT_MAX_BYTES: Final = 4 * KIB
POLICY_MAX_BYTES: Final = 20 * KIB
"""A resource policy as JSON (semantics 5.1)."""
HANDLER_MAX_CHARS: Final = 128
INIT_MAX_S: Final = 10
"""Init phase outside an invocation; past it, init runs again inside the first one (semantics 6.2)."""
PROVISIONED_INIT_MAX_S: Final = 900
"""The same of a worker of provisioned concurrency, which starts before it is needed."""
LOG_TAIL_MAX_BYTES: Final = 4 * KIB
"""`X-Amz-Log-Result` holds the last 4 KB of an invocation's log."""
ACCOUNT_CONCURRENCY_DEFAULT: Final = 1000
OPEN_FILES_MAX: Final = 1024
PROCESSES_MAX: Final = 1024
"""Processes and threads of a function: Lambda's own limit, which the kernel counts per user id."""
PROCESS_TREE_MAX: Final = 256
"""Processes of one worker, which is killed when it has more: ours, for a thousand that spin starve a machine."""

# --- asynchronous invocation (semantics 2.1) ---
ASYNC_RETRY_ATTEMPTS_DEFAULT: Final = 2
ASYNC_RETRY_DELAYS_DEFAULT_S: Final = (60.0, 120.0)
EVENT_AGE_MIN_S: Final = 60
EVENT_AGE_MAX_S: Final = 21_600
EVENT_AGE_DEFAULT_S: Final = 21_600
THROTTLE_BACKOFF_MIN_S: Final = 1.0
THROTTLE_BACKOFF_MAX_S: Final = 300.0
SYNC_CONCURRENCY_WAIT_S: Final = 1.0
"""A synchronous call over a concurrency limit waits this long before its 429."""

# --- remote functions ---
REMOTE_MARGIN_S: Final = 15.0
"""A remote function's answer is waited for so much longer than the function may take: a start from cold, the way."""
REMOTE_CONNECTIONS_MAX: Final = 1000
"""Invocations at once, over all remote functions of one connection."""
REMOTE_FAILURES_MAX: Final = 5
"""So many system errors in a row, and the remote is asked by one invocation at a time; one, when nobody is there."""
REMOTE_THROTTLE_KEPT_S: Final = 60.0
"""A throttle's limit on invocations at once is forgotten when none came for so long."""

# --- intake ---
BODY_DEFAULT_MAX_BYTES: Final = 1 * MIB
BODY_MAX_BYTES: Final = SYNC_PAYLOAD_MAX_BYTES
HEADER_MAX_BYTES: Final = 8190
HEADERS_MAX: Final = 128
PATH_MAX_BYTES: Final = 4096
QUERY_PAIRS_MAX: Final = 256
REQUEST_EVENTS_MAX: Final = 1000
"""Events of one webhook request (a batch of CloudEvents): ours, each is a task while it is stored."""
LOGS_UNPACKED_MAX_BYTES: Final = 16 * MIB
"""What the gzip of log events may unpack to, where somebody must look into it."""
ALB_MAX_BYTES: Final = 1 * MIB
"""Body of a request and JSON of an answer of a load balancer's target group (format `alb`)."""
REST_ANSWER_MAX_S: Final = 29.0
"""API Gateway's default integration timeout of REST APIs (format `apigateway-v1`): then 504, the function runs on."""
COGNITO_ANSWER_MAX_S: Final = 5.0
"""A quota of Cognito's that cannot be changed (format `cognito`): then its failure, the function runs on."""
REQUEST_MAX_S: Final = 10.0
HEADER_MAX_S: Final = 5.0
KEEPALIVE_S: Final = 5.0
CONNECTIONS_MAX: Final = 1024
CONNECTIONS_RESERVE: Final = 32
"""Connections of `connections_max` that only the api listener may use, so that health answers under load."""
JSON_DEPTH_MAX: Final = 200
"""orjson writes 254 levels at most; what is accepted must be writable."""
DEDUPLICATION_IDS_MAX: Final = 1_000_000
DEDUPLICATION_WINDOW_DEFAULT_S: Final = 300
SIGNATURE_WINDOW_S: Final = 300
SNS_WINDOW_S: Final = 3900
"""How old a signed message of SNS may be: it is tried for an hour at most (sns-message-delivery-retries.html)."""

# --- schedules ---
SCHEDULE_LATE_S: Final = 60
"""A tick that comes later than this was missed; EventBridge's own precision is a minute too (schedule-types.html)."""
SCHEDULE_MISSED_MAX: Final = 1000
"""Missed ticks that `missed = "all"` makes up for at once, the newest."""
SCHEDULE_LOOK_S: Final = 15.0
"""Longest sleep of a schedule: so soon it notices that the system's clock was set, or the machine slept."""
SCHEDULE_BACKOFF_MIN_S: Final = 1.0
SCHEDULE_BACKOFF_MAX_S: Final = 60.0
"""Between tries of a tick that cannot be stored (disk or lane full), doubling; for ever."""

# --- MQTT ---
MQTT_BUFFER_DEFAULT_BYTES: Final = 16 * MIB
"""Received and not stored, of one source; above it nothing is read from the socket until half of it is stored."""
MQTT_STORES_MAX: Final = 4096
"""Events of one source on their way into the journal at once."""
MQTT_RECEIVE_MAX: Final = 500
"""Messages that a broker may have sent and we have not acknowledged (MQTT 5, Receive Maximum)."""
MQTT_PACKET_SPARE_BYTES: Final = 128 * KIB
"""What a packet may have beside its payload: a topic and properties."""
MQTT_ANSWER_S: Final = 10.0
"""What is waited for an answer of a broker."""
MQTT_BACKOFF_MIN_S: Final = 1.0
MQTT_BACKOFF_MAX_S: Final = 60.0
"""Between connections, doubling, with jitter."""
MQTT_STORE_BACKOFF_MIN_S: Final = 0.1
MQTT_STORE_BACKOFF_MAX_S: Final = 5.0
"""Between tries to store what the disk or a lane had no room for."""
MQTT_TOPICS_MAX: Final = 100
"""Topic filters of one source."""

# --- journal and lanes ---
SEGMENT_DEFAULT_BYTES: Final = 64 * MIB
LANE_EVENTS_MAX: Final = 1_000_000
LANE_MAX_BYTES: Final = 4 * GIB
LANE_BUFFER_EVENTS_MAX: Final = 10_000
LANE_BUFFER_MAX_BYTES: Final = 16 * MIB
OUTCOME_SYNC_S: Final = 0.2
PARKED_INLINE_MAX_BYTES: Final = 64 * KIB
BALLAST_DEFAULT_BYTES: Final = 64 * MIB
LOW_WATER_DEFAULT_BYTES: Final = 256 * MIB

# --- event source mappings (semantics 3.1) ---
BATCH_SIZE_DEFAULT: Final = 100
BATCH_SIZE_MAX: Final = 10_000
BATCHING_WINDOW_MAX_S: Final = 300
BATCHING_WINDOW_KAFKA_DEFAULT_S: Final = 0.5
PARALLELIZATION_MAX: Final = 10
RECORD_AGE_MIN_S: Final = 60
RECORD_AGE_MAX_S: Final = 604_800
RETRY_ATTEMPTS_MAX: Final = 10_000
TUMBLING_WINDOW_MAX_S: Final = 900
WINDOW_STATE_MAX_BYTES: Final = 1 * MIB
FILTERS_MAX: Final = 10
MAPPING_CONCURRENCY_MAX: Final = 1000
"""AWS has 2..1000, for SQS alone; here every mapping has it, and 1 means one invocation at a time."""
CONSUMER_GROUP_MAX_CHARS: Final = 200
SESSION_TIMEOUT_DEFAULT_S: Final = 10.0
SESSION_TIMEOUT_MIN_S: Final = 1.0
SESSION_TIMEOUT_MAX_S: Final = 1800.0
"""Of a consumer group's member. Brokers have bounds of their own: 6 s to 30 min unless they are told otherwise."""
TOPIC_MAX_CHARS: Final = 249
BOOTSTRAP_SERVERS_MAX: Final = 100
STREAM_SHARDS_DEFAULT: Final = 4
STREAM_SHARDS_MAX: Final = 256
PUT_RECORDS_MAX: Final = 10_000
GIVEN_EVENTS_MAX: Final = 1000
"""Events that one request may give to a push source by hand."""
PUT_MAX_BYTES: Final = 12 * MIB
"""What one request may put into an embedded stream: a value of 6 MiB in base64, and more than can be delivered."""
STREAM_BACKOFF_MIN_S: Final = 0.5
STREAM_BACKOFF_MAX_S: Final = 60.0
"""Between tries of a batch, doubling, with full jitter (AWS documents none)."""
STREAM_BUFFER_RECORDS_MAX: Final = 20_000
STREAM_BUFFER_MAX_BYTES: Final = 16 * MIB
"""Read and not yet finished, per shard; above either the shard is paused. A single batch may always be gathered."""
STREAM_BUFFERS_MAX_BYTES: Final = 64 * MIB
"""…and over all shards of a mapping, each its part (at least 1 MiB)."""
COMMIT_S: Final = 0.2
COMMIT_RECORDS: Final = 1000
"""Marks are committed at least so often (seconds, records finished)."""
MARK_NOTE_MAX_BYTES: Final = 3 * KIB
"""Kafka keeps commit metadata up to 4 KiB (offset.metadata.max.bytes)."""
REVOKE_MAX_S: Final = 5.0
"""How long a rebalance waits for running batches."""

# --- queues (semantics 3.8b) ---
QUEUE_BATCH_SIZE_DEFAULT: Final = 10
FIFO_BATCH_SIZE_MAX: Final = 10
QUEUE_CALL_MAX: Final = 10
"""Messages of one ReceiveMessage, DeleteMessageBatch or ChangeMessageVisibilityBatch."""
QUEUE_WAIT_S: Final = 20.0
"""Of a long poll; SQS's own limit."""
QUEUE_HIDDEN_MAX_S: Final = 43_200.0
"""SQS hides a message for at most 12 hours from its receive."""
QUEUE_HIDDEN_SPARE_S: Final = 30.0
"""What a message is hidden for beyond its batching window and the function's timeout (semantics 3.8b)."""
QUEUE_BUFFER_RECORDS_MAX: Final = 20_000
QUEUE_BUFFER_MAX_BYTES: Final = 64 * MIB
"""Received and not running yet, of one mapping; above either nothing is received."""
QUEUE_RECEIVERS_MAX: Final = 16
"""Receives of one mapping at once."""
QUEUE_CALLS_MAX: Final = 8
"""Deletes at once, and changes of visibility at once, of one mapping."""
QUEUE_DELETE_TRIES_MAX: Final = 20
"""Then a handled message stays in the queue and may come again; said in the log."""
QUEUE_LOOK_S: Final = 15.0
"""Between looks at a queue's counts and attributes."""


# --- targets of records (destinations, dead-letter targets) ---
TARGET_BACKOFF_MIN_S: Final = 1.0
TARGET_BACKOFF_MAX_S: Final = 300.0
"""Between tries of a target that takes nothing, doubling; for ever."""
TARGET_SENDS_MAX: Final = 32
"""Records of one target that are sent at once."""
AWS_ROLE_CLIENTS_MAX: Final = 256
"""Clients of AWS that act as roles of functions, one a function and service; the one that is used least goes."""
AWS_ROLE_CLIENTS_LEAVING_MAX: Final = 64
"""Of those that have gone, how many are left open for what they were asked last; above it the oldest is closed."""
AWS_ROLE_CREDENTIALS_MAX: Final = 1024
"""Roles of functions whose credentials are kept though their clients have gone: they are small, and STS is slow."""
RECURSION_MAX: Final = 16
"""Records of one function that may lie within each other: functions that tell each other stop there. AWS stops such
loops after about as many (docs.aws.amazon.com/lambda/latest/dg/invocation-recursion.html)."""

# --- CloudWatch Logs ---
CLOUDWATCH_BUFFER_MAX_BYTES: Final = 16 * MIB
"""Log events that wait to be sent; further ones are dropped and counted."""
CLOUDWATCH_GROUP_MAX_BYTES: Final = CLOUDWATCH_BUFFER_MAX_BYTES // 4
"""…of one log group, so that one that takes nothing leaves room for the others."""
CLOUDWATCH_SENDS_MAX: Final = 8
"""Calls at once."""
CLOUDWATCH_BACKOFF_MIN_S: Final = 1.0
CLOUDWATCH_BACKOFF_MAX_S: Final = 60.0
"""Between tries of a log group that takes nothing, doubling; for ever."""

# --- life of the daemon ---
DRAIN_GRACE_DEFAULT_S: Final = 25.0
TASK_RESTART_DELAYS_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
TASK_FAILURES_MAX: Final = 5
TASK_FAILURES_WINDOW_S: Final = 600.0
REPLAYS_ACTIVE_MAX: Final = 10
