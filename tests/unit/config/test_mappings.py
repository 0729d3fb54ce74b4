"""Connections and event source mappings of a file: what they come to, and every mistake in them."""

import datetime as dt

import pytest

from bridge.config.connections import connection_values
from bridge.config.mappings import mapping_values
from bridge.config.show import show
from bridge.core.connection import KafkaConnection, KafkaSasl, KafkaTls, SaslMechanism
from bridge.core.mapping import EventSourceMapping, FunctionResponseType, StartingPosition

ARN = "arn:aws:kafka:eu-central-1:123456789012:cluster/orders/1a2b3c-4"
FUNCTION = '[functions.f]\ncode = "code"\nhandler = "app.handler"\n'
CONNECTION = '[connections.c]\ntype = "kafka"\nbootstrap_servers = ["k:9092"]\n'
MAPPING = FUNCTION + CONNECTION + '\n[mappings.m]\nsource = "kafka://c/t"\nfunction = "f"\n'
"""10 lines."""
PUSH = FUNCTION + '[sources.s]\ntype = "webhook"\npath = "/s"\nverify = "none"\n'
STREAM = PUSH + '[mappings.m]\nsource = "s"\nfunction = "f"\n'
"""10 lines."""
LOCAL = FUNCTION + '[mappings.m]\nsource = "local://t?as=kafka"\nfunction = "f"\n'
"""6 lines."""
PLAIN = CONNECTION + 'sasl = { mechanism = "PLAIN", username = "u", password = { env = "P" } }\n'
HERE = 'bootstrap_servers = ["localhost:9092", "127.0.0.1:9093", "[::1]:9094"]'


def one(settings) -> EventSourceMapping:
    (mapping,) = mapping_values(settings)
    return mapping


class TestValues:
    def test_defaults(self, load_text):
        assert one(load_text(MAPPING).settings) == EventSourceMapping(
            name="m", source="kafka://c/t", function="f", maximum_batching_window_s=0.5
        )

    @pytest.mark.parametrize(("text", "window_s"), [(STREAM, 0.0), (LOCAL, 0.5)])
    def test_the_default_window_is_that_of_the_source(self, load_text, text, window_s):
        assert one(load_text(text).settings).maximum_batching_window_s == window_s
        assert one(load_text(text + "maximum_batching_window_s = 3").settings).maximum_batching_window_s == 3

    def test_everything_a_topic_can_have(self, load_text):
        text = MAPPING + (
            "enabled = false\nbatch_size = 10000\nmaximum_batching_window_s = 300\nparallelization_factor = 10\n"
            "starting_position = 'AT_TIMESTAMP'\nstarting_position_timestamp = 2026-01-01T00:00:00Z\n"
            "maximum_record_age_s = 604800\nmaximum_retry_attempts = 10000\nbisect_batch_on_function_error = true\n"
            "function_response_types = ['ReportBatchItemFailures']\nfilters = ['{\"value\": {\"n\": [null]}}']\n"
            "on_failure = 'kafka://c/t-failed'\nmaximum_concurrency = 1\narchive = true\nconsumer_group_id = 'a/b:c'\n"
            f"group_instance_id = 'one'\nsession_timeout_s = 45\nisolation_level = 'read_committed'\nevent_source_arn = '{ARN}'\n"
            "allow_remote = true\n"
        )

        assert one(load_text(text).settings) == EventSourceMapping(
            name="m", source="kafka://c/t", function="f", enabled=False, batch_size=10_000, maximum_batching_window_s=300,
            parallelization_factor=10, starting_position=StartingPosition.AT_TIMESTAMP,
            starting_position_timestamp=1_767_225_600.0, maximum_record_age_s=604_800, maximum_retry_attempts=10_000,
            bisect_batch_on_function_error=True,
            function_response_types=(FunctionResponseType.REPORT_BATCH_ITEM_FAILURES,),
            filters=('{"value": {"n": [null]}}',), on_failure="kafka://c/t-failed", maximum_concurrency=1, archive=True,
            consumer_group_id="a/b:c", group_instance_id="one", session_timeout_s=45, isolation_level="read_committed", event_source_arn=ARN,
            allow_remote=True,
        )  # fmt: skip

    def test_everything_a_stream_of_ours_can_have(self, load_text):
        mapping = one(load_text(STREAM + "shards = 256\nkey = 'body:customer.id'\ntumbling_window_s = 900").settings)

        assert (mapping.shards, mapping.key, mapping.tumbling_window_s) == (256, "body:customer.id", 900)
        assert one(load_text(STREAM + "key = 'header:X-Customer'").settings).key == "header:X-Customer"

    @pytest.mark.parametrize(
        "written", ["2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00", "'2026-01-01T00:00:00Z'", "1767225600", "1767225600.0"]
    )  # fmt: skip
    def test_timestamps(self, load_text, written):
        text = MAPPING + f"starting_position = 'AT_TIMESTAMP'\nstarting_position_timestamp = {written}"

        assert one(load_text(text).settings).starting_position_timestamp == 1_767_225_600.0

    def test_the_connections_arn_counts_where_the_mapping_has_none(self, load_text):
        text = MAPPING.replace('["k:9092"]\n', f'["k:9092"]\nevent_source_arn = "{ARN}"\n')

        assert one(load_text(text).settings).event_source_arn == ARN
        other = ARN.replace("orders", "others")
        assert one(load_text(text + f'event_source_arn = "{other}"').settings).event_source_arn == other

    def test_a_source_that_mappings_read_needs_no_function(self, load_text):
        assert load_text(STREAM).settings.sources["s"].function is None

    def test_one_topic_for_two_functions_and_one_stream_for_two_is_fan_out(self, load_text):
        other = "[mappings.n]\nsource = 'kafka://c/t'\nfunction = 'g'\n"

        loaded = load_text(MAPPING + other + FUNCTION.replace("functions.f", "functions.g"))

        assert [mapping.group for mapping in mapping_values(loaded.settings)] == ["bridge-m", "bridge-n"]

    def test_shown_again_it_is_the_same(self, load_text):
        text = MAPPING + "filters = ['{\"a\": [1]}']\nstarting_position = 'AT_TIMESTAMP'\n"
        text += "starting_position_timestamp = 2026-01-01T00:00:00Z\n" + PLAIN.replace(
            "[connections.c]", "[connections.d]\ntls = true"
        )
        before = load_text(text, {"P": "canary"}).settings
        shown = show(before)

        assert "canary" not in shown
        assert load_text(shown, {"P": "canary"}).settings == before


class TestConnections:
    def test_plain_text(self, load_text):
        assert connection_values(load_text(MAPPING).settings) == {
            "c": KafkaConnection(name="c", bootstrap_servers=("k:9092",))
        }

    def test_one_written_in_the_source(self, load_text):
        text = FUNCTION + "[mappings.m]\nsource = 'kafka://a:9092,[::1]:9093/t'\nfunction = 'f'\n"

        assert connection_values(load_text(text).settings) == {
            "a:9092,[::1]:9093": KafkaConnection(name="", bootstrap_servers=("a:9092", "[::1]:9093"))
        }

    def test_tls_and_scram(self, load_text, folder):
        (folder / "password").write_text("canary\n")
        (folder / "password").chmod(0o600)
        text = CONNECTION + (
            "tls = true\nclient_id = 'me'\n"
            "sasl = { mechanism = 'SCRAM-SHA-256', username = 'u', password = { file = 'password' } }\n"
        )
        found = connection_values(load_text(text).settings)["c"]

        assert found == KafkaConnection(
            name="c", bootstrap_servers=("k:9092",), tls=KafkaTls(), client_id="me",
            sasl=KafkaSasl(mechanism=SaslMechanism.SCRAM_SHA_256, username="u", password="canary"),
        )  # fmt: skip
        assert "canary" not in repr(found)

    def test_files(self, load_text, folder, pair):
        found = load_text(CONNECTION + "tls = { ca = 'cert.pem', cert = 'cert.pem', key = 'key.pem' }")

        paths = {"ca": "cert.pem", "cert": "cert.pem", "key": "key.pem"}
        assert connection_values(found.settings)["c"].tls == KafkaTls(**{n: str(folder / p) for n, p in paths.items()})
        assert found.warnings == ()

    def test_a_loosely_kept_key_warns(self, load_text, folder, pair):
        (folder / "key.pem").chmod(0o644)

        (warning,) = load_text(CONNECTION + "tls = { cert = 'cert.pem', key = 'key.pem' }").warnings

        assert (
            warning == "bridge.toml:4: connections.c.tls.key: the file can be read by others (mode 0644); chmod 600 it"
        )

    @pytest.mark.parametrize(
        "sasl", ["mechanism = 'OAUTHBEARER', token = 'tokens:fetch'", "mechanism = 'AWS_MSK_IAM', region = 'eu-central-1'"]
    )  # fmt: skip
    def test_tokens(self, load_text, sasl):
        assert connection_values(load_text(CONNECTION + f"tls = true\nsasl = {{ {sasl} }}").settings)["c"].sasl

    @pytest.mark.parametrize("change", ["tls = true", "insecure = true", HERE])
    def test_a_password_in_plain_text_where_it_is_safe_or_meant(self, load_text, change):
        text = PLAIN.replace('bootstrap_servers = ["k:9092"]', HERE) if change == HERE else PLAIN + change

        assert connection_values(load_text(text, {"P": "p"}).settings)["c"].sasl.password == "p"


SASL = "4: connections.c.sasl"
OPEN = (
    "the password would pass in plain text to another machine: write tls = true, or insecure = true where that is meant"
)


class TestConnectionMistakes:
    @pytest.mark.parametrize(
        ("text", "line"),
        [
            (CONNECTION.replace('type = "kafka"\n', ""), '1: connections.c.type: missing; write type = "kafka" or "aws"'),
            (CONNECTION.replace('"kafka"', '"kafak"'), '2: connections.c.type: must be "kafka" or "aws"; did you mean kafka?'),
            (CONNECTION + "brokers = 1", "4: connections.c.brokers: unknown key"),
            (CONNECTION + "bootstrap_server = 1", "4: connections.c.bootstrap_server: unknown key; did you mean bootstrap_servers?"),
            (CONNECTION.replace('"k:9092"', ""), "3: connections.c.bootstrap_servers: must have at least 1 item"),
            (CONNECTION.replace(":9092", ""), "3: connections.c.bootstrap_servers[0]: must be host:port, such as kafka-1:9092 or [::1]:9092"),
            (CONNECTION.replace(":9092", ":0"), "3: connections.c.bootstrap_servers[0]: the port must be 1..65535"),
            (CONNECTION.replace("k:9092", "${GONE}"), "3: connections.c.bootstrap_servers[0]: ${GONE} is not set in the environment; set it or write ${GONE:-default}"),
            (CONNECTION + "event_source_arn = 'arn:aws:sqs:x'", "4: connections.c.event_source_arn: not a valid value: The cluster's ARN"),
            (CONNECTION + "tls = 'on'", '4: connections.c.tls: must be true, false or { ca = "path", cert = "path", key = "path" }'),
            (CONNECTION + "tls = { ca = 'gone.pem' }", "4: connections.c.tls.ca: no such file or directory"),
            (CONNECTION + "tls = { ca = 'code/app.py' }", "4: connections.c.tls.ca: holds no certificate in PEM"),
            (CONNECTION + "tls = { cert = 'code/app.py' }", "4: connections.c.tls.key: missing: a client's certificate is cert and key; cert is there"),
            (CONNECTION + "tls = { key = 'code/app.py' }", "4: connections.c.tls.cert: missing: a client's certificate is cert and key; key is there"),
            (CONNECTION + "tls = { cert = 'code/app.py', key = 'code/app.py' }", "4: connections.c.tls: certificate and key are not a pair in PEM, or the key has a passphrase"),
            (CONNECTION + "sasl = { mechanism = 'GSSAPI' }", SASL + '.mechanism: must be "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER" or "AWS_MSK_IAM"'),
            (CONNECTION + "sasl = { mechanism = 'SCRAM-SHA-512', username = 'u' }", SASL + ".password: missing: SCRAM-SHA-512 needs username and password"),
            (CONNECTION + "sasl = { mechanism = 'SCRAM-SHA-512', password = { env = 'P' } }", SASL + ".username: missing: SCRAM-SHA-512 needs username and password"),
            (CONNECTION + "sasl = { mechanism = 'SCRAM-SHA-512', username = 'u', password = 'p' }", SASL + '.password: a secret is not written into the file; write { env = "NAME" } or { file = "path" }'),
            (CONNECTION + "sasl = { mechanism = 'SCRAM-SHA-512', username = 'u', password = { env = 'P' }, region = 'eu-central-1' }", SASL + ".region: SCRAM-SHA-512 has no region"),
            (CONNECTION + "tls = true\nsasl = { mechanism = 'OAUTHBEARER' }", "5: connections.c.sasl.token: missing: OAUTHBEARER needs token"),
            (CONNECTION + "tls = true\nsasl = { mechanism = 'OAUTHBEARER', token = 'fetch' }", "5: connections.c.sasl.token: not a valid value: module:function that returns the token"),
            (CONNECTION + "tls = true\nsasl = { mechanism = 'AWS_MSK_IAM' }", "5: connections.c.sasl.region: missing: AWS_MSK_IAM needs region"),
            (PLAIN, f"{SASL}: {OPEN}"),
            (PLAIN.replace('"k:9092"', '"localhost:1", "k:9092"'), f"{SASL}: {OPEN}"),
            (PLAIN + "tls = false", f"{SASL}: {OPEN}"),
            (CONNECTION + "sasl = { mechanism = 'OAUTHBEARER', token = 'a:b' }", f"{SASL}: {OPEN.replace('password', 'token')}"),
        ],
    )  # fmt: skip
    def test_the_line(self, mistakes, text, line):
        (mistake,) = mistakes(text, {"P": "p"})

        assert mistake.startswith("bridge.toml:" + line)

    def test_the_password_is_not_shown(self, mistakes):
        assert "canary" not in "".join(mistakes(PLAIN + "tls = 'x'\nclient_id = ''", {"P": "canary"}))


ANY = "must be kafka://CONNECTION/topic, kinesis://CONNECTION/stream, dynamodb://CONNECTION/table, sqs://CONNECTION/queue, an ARN, local://STREAM?as=kafka|kinesis|dynamodb|sqs or the name of a push source"
SOURCE = "9: mappings.m.source: "


def reads(source: str) -> str:
    return MAPPING.replace("kafka://c/t", source)


class TestMappingMistakes:
    @pytest.mark.parametrize(
        ("text", "line"),
        [
            # sources
            (reads("kafka://d/t"), SOURCE + "no connection d here; write [connections.X], or the address: kafka://host:port/topic"),
            (reads("kafka://mian/t").replace("connections.c", "connections.main"), SOURCE + "no connection mian here; did you mean main?"),
            (reads("kafka://c"), SOURCE + "must be kafka://CONNECTION/topic or kafka://host:port/topic"),
            (reads("kafka://c/t/u"), SOURCE + "must be kafka://CONNECTION/topic or kafka://host:port/topic"),
            (reads("kafka://c/t?as=kafka"), SOURCE + "must be kafka://CONNECTION/topic or kafka://host:port/topic"),
            (reads("kafka://u:p@k:1/t"), SOURCE + "must be host:port, such as kafka-1:9092 or [::1]:9092"),
            (reads("kafka://k:70000/t"), SOURCE + "the port must be 0..65535"),
            (reads("kafka://c/t#x"), SOURCE + "a source has no #fragment"),
            (reads("kafka://c/.."), SOURCE + "a topic or stream is named with 1..249 of a-z A-Z 0-9 . _ -"),
            (reads("kafka://c/é"), SOURCE + "a topic or stream is named with 1..249 of a-z A-Z 0-9 . _ -"),
            (reads("kafka://[::1/t"), SOURCE + "invalid IPv6 URL"),
            (reads("kafka://c/t t"), SOURCE + ANY),
            (reads("kinesis://c/t"), SOURCE + "connections.c is a cluster of Kafka, not AWS"),
            (reads("kinesis://c"), SOURCE + "must be kinesis://CONNECTION/stream"),
            (reads("dynamodb://d/tables"), SOURCE + 'no connection d here; write [connections.X] with type = "aws"'),
            (reads("dynamodb://c/t"), SOURCE + "must be dynamodb://CONNECTION/table"),
            (reads("arn:aws:mq:x"), SOURCE + "must be an ARN: arn:aws:SERVICE:REGION:ACCOUNT:RESOURCE"),
            (reads("arn:aws:mq:eu-central-1:123456789012:broker:b"), SOURCE + "an ARN as a source is that of a Kinesis stream, a DynamoDB stream or an SQS queue"),
            (reads(ARN), SOURCE + "write kafka://CONNECTION/topic; the cluster's ARN goes into event_source_arn"),
            (reads("mqtt://x/y"), SOURCE + "mqtt: is no source; known are kafka://, kinesis://, dynamodb://, sqs://, local://, an ARN, or the name of a push source"),
            (reads("local://t?as=redis"), SOURCE + "must be local://STREAM?as=kafka|kinesis|dynamodb|sqs"),
            (reads("local://t"), SOURCE + "must be local://STREAM?as=kafka|kinesis|dynamodb|sqs"),
            (reads("stripe"), SOURCE + "no source stripe here; write the name of a push source, or a URL: kafka://CONNECTION/topic"),
            (reads("a.b"), SOURCE + ANY),
            (MAPPING.replace('source = "kafka://c/t"\n', ""), "8: mappings.m.source: missing: kafka://CONNECTION/topic"),
            (STREAM.replace('verify = "none"\n', 'verify = "none"\ninvocation_type = "RequestResponse"\nfunction = "f"\n'),
             "11: mappings.m.source: sources.s is RequestResponse: only what is stored first, by Event, is a stream"),
            # functions
            (MAPPING.replace('function = "f"', "function = 'f:a.b'"), "10: mappings.m.function: a qualifier is $LATEST, a version's number or an alias: 1..128"),
            (MAPPING.replace('function = "f"\n', ""), "8: mappings.m.function: missing: name[:version or alias] or ARN of the function that gets the batches"),
            (PUSH, "4: sources.s.function: missing: name a function, or have a mapping read this source"),
            (PUSH + "invocation_type = 'RequestResponse'", "4: sources.s.function: missing: RequestResponse asks the function itself"),
            # ranges
            (MAPPING + "batch_size = 0", "11: mappings.m.batch_size: must be at least 1, not 0"),
            (MAPPING + "batch_size = 10001", "11: mappings.m.batch_size: must be at most 10000, not 10001"),
            (MAPPING + "maximum_batching_window_s = 301", "11: mappings.m.maximum_batching_window_s: must be at most 300, not 301"),
            (MAPPING + "parallelization_factor = 11", "11: mappings.m.parallelization_factor: must be at most 10, not 11"),
            (MAPPING + "starting_position = 'NEWEST'", '11: mappings.m.starting_position: must be "TRIM_HORIZON", "LATEST" or "AT_TIMESTAMP"'),
            (MAPPING + "maximum_record_age_s = 59", "11: mappings.m.maximum_record_age_s: must be -1 (no limit) or 60..604800, not 59"),
            (MAPPING + "maximum_record_age_s = 604801", "11: mappings.m.maximum_record_age_s: must be -1 (no limit) or 60..604800, not 604801"),
            (MAPPING + "maximum_record_age_s = 'x'", "11: mappings.m.maximum_record_age_s: must be a whole number of seconds, not a string"),
            (MAPPING + "maximum_retry_attempts = -2", "11: mappings.m.maximum_retry_attempts: must be at least -1, not -2"),
            (MAPPING + "maximum_retry_attempts = 10001", "11: mappings.m.maximum_retry_attempts: must be at most 10000, not 10001"),
            (STREAM + "tumbling_window_s = 901", "11: mappings.m.tumbling_window_s: must be at most 900, not 901"),
            (STREAM + "shards = 257", "11: mappings.m.shards: must be at most 256, not 257"),
            (MAPPING + "maximum_concurrency = 0", "11: mappings.m.maximum_concurrency: must be at least 1, not 0"),
            (MAPPING + "function_response_types = ['ReportItemFailures']", '11: mappings.m.function_response_types[0]: must be "ReportBatchItemFailures"'),
            (MAPPING + "isolation_level = 'committed'", '11: mappings.m.isolation_level: must be "read_uncommitted" or "read_committed"; did you mean read_committed?'),
            (MAPPING + f"consumer_group_id = '{'g' * 201}'", "11: mappings.m.consumer_group_id: must be at most 200 characters"),
            (MAPPING + "consumer_group_id = 'a b'", "11: mappings.m.consumer_group_id: not a valid value: "),
            (STREAM + "key = 'id'", "11: mappings.m.key: must be header:NAME, body:FIELD, such as body:customer.id, topic or topic:LEVEL, such as topic:2"),
            # filters
            (MAPPING + "filters = ['{\"a\": [1]}', '{']", "11: mappings.m.filters[1]: not a filter pattern: "),
            (MAPPING + 'filters = [\'{"value": 1}\']', "11: mappings.m.filters[0]: not a filter pattern: "),
            (MAPPING + "filters = [{ value = [1] }]", "11: mappings.m.filters[0]: must be a string, not a table"),
            (MAPPING + "filters = [" + "'{\"a\": [1]}'," * 11 + "]", "11: mappings.m.filters: must have at most 10 items"),
            # on_failure
            (MAPPING + "on_failure = 'kafka://c/t'", "11: mappings.m.on_failure: must not be the source's own topic"),
            (MAPPING + "on_failure = 'kafka://d/t'", "11: mappings.m.on_failure: no connection d here"),
            (MAPPING + "on_failure = 'drop'", '11: mappings.m.on_failure: must be "spill" (failures alone), an ARN or kafka://CONNECTION/topic'),
            (MAPPING + "on_failure = 'kafka://t-failed'", "11: mappings.m.on_failure: must be kafka://CONNECTION/topic"),
            (MAPPING + "on_failure = 'kafka://k:9092/x'", "11: mappings.m.on_failure: must be kafka://CONNECTION/topic"),
            (MAPPING + "on_failure = 'arn:aws:events:eu-central-1:123456789012:event-bus/b'", "11: mappings.m.on_failure: The destination ARN arn:aws:events:eu-central-1:123456789012:event-bus/b is invalid. It must be of an SQS queue, an SNS topic or an S3 bucket, or kafka://CONNECTION/topic"),
            (MAPPING + "on_failure = 'arn:aws:sqs:eu-central-1:123456789012:q.fifo'", "11: mappings.m.on_failure: The destination ARN arn:aws:sqs:eu-central-1:123456789012:q.fifo is invalid. FIFO queues are not supported"),
            # starting_position_timestamp
            (MAPPING + "starting_position = 'AT_TIMESTAMP'", "8: mappings.m.starting_position_timestamp: missing: AT_TIMESTAMP needs a time, such as 2026-01-31T08:00:00Z"),
            (MAPPING + "starting_position_timestamp = 1", '11: mappings.m.starting_position_timestamp: only with starting_position = "AT_TIMESTAMP"'),
            # what excludes what
            (MAPPING + "tumbling_window_s = 5", "11: mappings.m.tumbling_window_s: Kafka has no tumbling windows (AWS: Kinesis and DynamoDB streams alone)"),
            (LOCAL + "tumbling_window_s = 5", "7: mappings.m.tumbling_window_s: Kafka has no tumbling windows"),
            (STREAM + "tumbling_window_s = 5\nparallelization_factor = 2", "11: mappings.m.tumbling_window_s: not together with a parallelization_factor above 1"),
            (MAPPING + "shards = 5", "11: mappings.m.shards: only for push sources and local://; a topic has its partitions"),
            (MAPPING + "key = 'body:id'", "11: mappings.m.key: only for push sources; a stream's records have keys of their own"),
            (LOCAL + "key = 'body:id'", "7: mappings.m.key: only for push sources; a stream's records have keys of their own"),
            (STREAM + "consumer_group_id = 'g'", "11: mappings.m.consumer_group_id: only for kafka://"),
            (MAPPING + "session_timeout_s = 0.5", "11: mappings.m.session_timeout_s: must be at least 1, not 0.5"),
            (LOCAL + "session_timeout_s = 45", "7: mappings.m.session_timeout_s: only for kafka://"),
            (LOCAL + "group_instance_id = 'g'", "7: mappings.m.group_instance_id: only for kafka://"),
            (STREAM + "isolation_level = 'read_committed'", "11: mappings.m.isolation_level: only for kafka://"),
            (STREAM + f"event_source_arn = '{ARN}'", "11: mappings.m.event_source_arn: only for kafka:// and local://"),
            (STREAM + "archive = true", "11: mappings.m.archive: only for kafka://, AWS and local://; a push source's events are in the journal already"),
            # refused by name
            (MAPPING + "SchemaRegistryConfig = { SchemaRegistryURI = 'x' }", "11: mappings.m.SchemaRegistryConfig: schema registries are not offered"),
            (MAPPING + "schema_registry_config = 1", "11: mappings.m.schema_registry_config: schema registries are not offered"),
            (MAPPING + "provisioned_poller_config = { minimum_pollers = 1 }", "11: mappings.m.provisioned_poller_config: provisioned pollers are not offered"),
            (MAPPING + "ProvisionedPollerConfig = 1", "11: mappings.m.ProvisionedPollerConfig: provisioned pollers are not offered"),
            (MAPPING + "consumption_mode = 'Queue'", "11: mappings.m.consumption_mode: consumption modes are not offered"),
            # AWS's spelling, and near ones
            (MAPPING + "BatchSize = 1", "11: mappings.m.BatchSize: unknown key; did you mean batch_size?"),
            (MAPPING + "MaximumBatchingWindowInSeconds = 1", "11: mappings.m.MaximumBatchingWindowInSeconds: unknown key; did you mean maximum_batching_window_s?"),
            (MAPPING + "EventSourceArn = 'x'", "11: mappings.m.EventSourceArn: unknown key; did you mean source?"),
            (MAPPING + "FilterCriteria = {}", "11: mappings.m.FilterCriteria: unknown key; did you mean filters?"),
            (MAPPING + "DestinationConfig = {}", "11: mappings.m.DestinationConfig: unknown key; did you mean on_failure?"),
            (MAPPING + "Topics = []", '11: mappings.m.Topics: unknown key; did you mean source = "kafka://CONNECTION/topic"?'),
            (MAPPING + "batch_sise = 1", "11: mappings.m.batch_sise: unknown key; did you mean batch_size?"),
            (MAPPING + "colour = 1", "11: mappings.m.colour: unknown key"),
            ("[mapping.m]\nsource = 'x'", "1: mapping: unknown key; did you mean mappings?"),
        ],
    )  # fmt: skip
    def test_the_line(self, mistakes, text, line):
        found = mistakes(text)

        assert len(found) == 1, found
        assert found[0].startswith("bridge.toml:" + line)

    def test_a_name_that_is_nearly_right(self, mistakes):
        found = mistakes(
            STREAM.replace('source = "s"', 'source = "stripes"').replace(
                "[sources.s]", '[sources.stripe]\nfunction = "f"'
            )
        )

        assert found == ["bridge.toml:10: mappings.m.source: no source stripes here; did you mean stripe?"]

    @pytest.mark.parametrize(
        "written", ["2026-01-01T00:00:00", "2026-01-01", "'yesterday'", "-1", "true", "nan", "[]", "1e300"]
    )
    def test_no_timestamps(self, mistakes, written):
        text = MAPPING + f"starting_position = 'AT_TIMESTAMP'\nstarting_position_timestamp = {written}"

        (mistake,) = mistakes(text)
        assert mistake == (
            "bridge.toml:12: mappings.m.starting_position_timestamp: "
            "must be a time with its zone, such as 2026-01-31T08:00:00Z, or epoch seconds"
        )

    def test_a_timestamp_in_the_future(self, mistakes):
        later = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)).isoformat()
        text = MAPPING + f"starting_position = 'AT_TIMESTAMP'\nstarting_position_timestamp = {later}"

        assert mistakes(text) == ["bridge.toml:12: mappings.m.starting_position_timestamp: must not be in the future"]

    def test_the_same_source_and_function_twice_is_a_conflict_as_on_aws(self, mistakes):
        other = (
            CONNECTION.replace("connections.c", "connections.d")
            + "[mappings.n]\nsource = 'kafka://d/t'\nfunction = 'f:$LATEST'\n"
        )
        uuid = EventSourceMapping(name="m", source="", function="").uuid

        (mistake,) = mistakes(MAPPING + other)
        assert mistake == (
            'bridge.toml:15: mappings.n.source: An event source mapping with event source ("k:9092"), function ("f"), '
            f'topics ("t") already exists. Please update or delete the existing mapping with UUID {uuid}: mappings.m'
        )

    def test_one_consumer_group_for_two_mappings_of_a_topic(self, mistakes):
        other = FUNCTION.replace("functions.f", "functions.g")
        other += "[mappings.n]\nsource = 'kafka://c/t'\nfunction = 'g'\nconsumer_group_id = 'bridge-m'"

        assert mistakes(MAPPING + other) == [
            "bridge.toml:17: mappings.n.consumer_group_id: mappings.m reads this topic with the same consumer group"
        ]

    def test_one_local_stream_has_one_number_of_shards(self, mistakes):
        other = FUNCTION.replace("functions.f", "functions.g")
        other += "[mappings.n]\nsource = 'local://t?as=kafka'\nfunction = 'g'\nshards = 8"

        assert mistakes(LOCAL + other) == [
            "bridge.toml:13: mappings.n.shards: mappings.m reads the same stream with 4 shards, not 8"
        ]

    def test_one_local_stream_is_of_one_source(self, mistakes):
        other = FUNCTION.replace("functions.f", "functions.g")
        other += "[mappings.n]\nsource = 'local://t?as=kinesis'\nfunction = 'g'"

        assert mistakes(LOCAL + other) == [
            "bridge.toml:11: mappings.n.source: mappings.m reads the same stream as=kafka"
        ]

    def test_all_at_once(self, mistakes):
        text = """\
[connections.main]
type = "kafka"
bootstrap_servers = ["k"]
sasl = { mechanism = "PLAIN", password = "p" }

[mappings.orders]
source = "kafka://mian/orders"
function = "order"
BatchSize = 3
batch_size = 0
filters = ["{"]
starting_position_timestamp = "soon"
tumbling_window_s = 3
"""
        assert [line.partition(": ")[2].partition(": ")[0] for line in mistakes(text)] == [
            "connections.main.bootstrap_servers[0]", "connections.main.sasl.password", "connections.main.sasl.username",
            "mappings.orders.source", "mappings.orders.BatchSize", "mappings.orders.batch_size",
            "mappings.orders.filters[0]", "mappings.orders.starting_position_timestamp",
            "mappings.orders.starting_position_timestamp", "mappings.orders.tumbling_window_s",
        ]  # fmt: skip
