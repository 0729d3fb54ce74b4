"""Event source mappings made by Lambda's API over fakes: AWS's shapes, its words for what is wrong, what may be changed."""

import json
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.api.app import AccessRules, ApiApp
from bridge.api.awslambda.mapped import MadeMappings, SourceLook
from bridge.core.connection import KafkaConnection
from bridge.core.function import Alias
from bridge.core.mapping import EventSourceMapping, MappingState, StartingPosition
from bridge.core.sources import MappingStatus
from bridge.registry.mapped import pack, unpack
from tests.unit.api.harness import NOW, TOKEN, World

PATH = "/2015-03-31/event-source-mappings"
GOLDEN = Path(__file__).parent / "golden"
FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:hello"
QUEUE = "arn:aws:sqs:us-east-1:000000000000:orders"
STREAM = "arn:aws:kinesis:us-east-1:000000000000:stream/orders"
TABLE = "arn:aws:dynamodb:us-east-1:000000000000:table/orders/stream/2026-01-01T00:00:00.000"
CLUSTER = "arn:aws:kafka:us-east-1:000000000000:cluster/main/0b1c"
BROKERS = {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["kafka:1000"]}}
KAFKA = {"SelfManagedEventSource": BROKERS, "Topics": ["topic"]}
KINESIS = {"EventSourceArn": STREAM, "StartingPosition": "LATEST"}


class Rows:
    """Keeps what the rows say, so that every answer has been through them."""

    def __init__(self):
        self.rows = {}

    async def load(self):
        return {key: unpack(row) for key, row in self.rows.items()}

    async def put(self, made):
        self.rows[made.uuid] = pack(made)

    async def drop(self, key):
        self.rows.pop(key, None)


class Mapped:
    """The api of a world whose mappings can be made."""

    def __init__(self):
        self.world = World()
        self.rows, self.busy, self.clusters = Rows(), set(), {}
        self.look = SourceLook()
        self.looked = []
        self.made = MadeMappings(
            store=self.rows, clusters=lambda: self.clusters, look=self._look, changed=self._changed,
            is_busy=self.busy.__contains__, clock=self.world.clock,
        )  # fmt: skip
        hello = self.world.catalog.known["hello"]
        one = replace(hello.latest, version="1")
        self.world.catalog.known["hello"] = replace(
            hello, versions={"1": one}, aliases={"live": Alias(name="live", version="1")}
        )
        services = replace(self.world.services, made_mappings=self.made)
        self.world.app = ApiApp(services, token=TOKEN, rules=AccessRules(asks=False))

    async def _look(self, mapping):
        self.looked.append(mapping)
        return self.look

    async def _changed(self):
        """Have all of them run, as a supervisor would after a moment."""
        statuses = self.world.mappings.statuses
        for name in [name for name, status in statuses.items() if status.mapping.is_made]:
            del statuses[name]
        for mapping in self.made.values():
            state = MappingState.ENABLED if mapping.enabled else MappingState.DISABLED
            status = MappingStatus(mapping=mapping, state=state, reason="USER_INITIATED", result="OK", modified_at=NOW)
            self.world.mappings.add(status)

    async def ask(self, method, path="", body=None, **more):
        data = b"" if body is None else json.dumps(body).encode()
        return await self.world.ask(method, PATH + path, body=data, token=None, **more)

    async def tags(self, method, path, body=None):
        """Return the status, and what was answered or the error's code."""
        data = b"" if body is None else json.dumps(body).encode()
        answer = await self.world.ask(method, path, body=data, token=None)
        if answer.status >= 400:
            return answer.status, answer.headers["x-amzn-errortype"]
        return answer.status, answer.json() if answer.body else None

    async def json(self, method, path="", body=None, status=200):
        answer = await self.ask(method, path, body)
        assert answer.status == status, answer.body
        return answer.json()

    async def create(self, function="hello", **more):
        return await self.json("POST", "", {"FunctionName": function, **more}, 202)

    async def refused(self, method, path, body, status=400, code="InvalidParameterValueException"):
        answer = await self.ask(method, path, body)
        assert (answer.status, answer.headers["x-amzn-errortype"]) == (status, code), answer.body
        return answer.json().get("message") or answer.json()["Message"]

    def runs(self, made):
        return self.world.mappings.statuses[made["UUID"]].mapping


@pytest.fixture
async def api():
    made = Mapped()
    await made.made.open()
    yield made
    await made.world.close()


def recorded(kind):
    return json.loads((GOLDEN / f"esm-create-{kind}.json").read_text())


# --- shapes -----------------------------------------------------------------------------------------------------


async def test_a_queues_is_answered_as_aws_answers_it(api):
    made = await api.create(EventSourceArn=QUEUE)
    expected = recorded("sqs")
    del expected["ResponseMetadata"]
    assert made.keys() == expected.keys()
    plain = ("BatchSize", "FunctionResponseTypes", "MaximumBatchingWindowInSeconds", "State", "StateTransitionReason")
    assert {name: made[name] for name in plain} == {name: expected[name] for name in plain}
    assert (made["EventSourceArn"], made["FunctionArn"]) == (QUEUE, FUNCTION)
    assert uuid.UUID(made["UUID"])
    assert made["EventSourceMappingArn"].endswith(f":event-source-mapping:{made['UUID']}")
    runs = api.runs(made)
    assert (runs.source, runs.batch_size, runs.archive, runs.on_failure) == (QUEUE, 10, True, "spill")


async def test_a_streams_is_answered_as_aws_answers_it(api):
    target = "arn:aws:sqs:us-east-1:000000000000:failed"
    made = await api.create(
        EventSourceArn=STREAM, StartingPosition="TRIM_HORIZON", BatchSize=1, MaximumBatchingWindowInSeconds=1,
        MaximumRetryAttempts=1, DestinationConfig={"OnFailure": {"Destination": target}},
    )  # fmt: skip
    expected = recorded("kinesis")
    del expected["ResponseMetadata"]
    assert made.keys() == expected.keys()
    assert {
        name: made[name] for name in made if isinstance(made[name], int | bool | list) and name != "LastModified"
    } == {name: expected[name] for name in expected if isinstance(expected[name], int | bool | list)}
    assert (made["State"], made["StateTransitionReason"]) == ("Creating", "User action")
    assert made["LastProcessingResult"] == "No records processed"
    assert api.runs(made).on_failure == target
    plain = await api.create(function="hello:live", **KINESIS)
    assert plain["DestinationConfig"] == {"OnFailure": {}}
    assert (plain["FunctionArn"], plain["StartingPosition"]) == (f"{FUNCTION}:live", "LATEST")


async def test_a_clusters_is_answered_as_aws_answers_it(api):
    api.clusters = {"main": KafkaConnection(name="main", bootstrap_servers=("other:1", "kafka:1000"))}
    access = [{"Type": "BASIC_AUTH", "URI": "arn:aws:secretsmanager:us-east-1:000000000000:secret:s"}]
    made = await api.create(**KAFKA, SourceAccessConfigurations=access)
    expected = recorded("kafka-self-managed")
    del expected["ResponseMetadata"]
    assert made.keys() - {"EventSourceMappingArn"} == expected.keys()  # which AWS shows since
    assert made["SelfManagedKafkaEventSourceConfig"] == {"ConsumerGroupId": made["UUID"]}
    assert (made["StateTransitionReason"], made["StartingPosition"]) == ("USER_INITIATED", "TRIM_HORIZON")
    runs = api.runs(made)
    assert (runs.source, runs.group, runs.maximum_batching_window_s) == ("kafka://main/topic", made["UUID"], 0.5)


async def test_which_connection_reaches_a_cluster(api):
    failed = {"DestinationConfig": {"OnFailure": {"Destination": "kafka://failed"}}}
    made = await api.create(**KAFKA)
    assert (api.runs(made).source, api.runs(made).on_failure) == ("kafka://kafka:1000/topic", "spill")
    assert "as the destination needs a [connections.X]" in await api.refused("PUT", f"/{made['UUID']}", failed)
    msk = {"EventSourceArn": CLUSTER, "Topics": ["orders"]}
    text = await api.refused("POST", "", {"FunctionName": "hello", **msk})
    assert "needs a [connections.X] of type kafka with this event_source_arn" in text
    secret = [{"Type": "SASL_SCRAM_512_AUTH", "URI": "arn:x"}, {"Type": "VPC_SUBNET", "URI": "subnet:s"}]
    for wrong, code in (([{"URI": "arn:x"}], "ValidationException"), ([*secret, "text"], "SerializationException")):
        body = {"FunctionName": "hello:1", **KAFKA, "SourceAccessConfigurations": wrong}
        await api.refused("POST", "", body, code=code)
    body = {"FunctionName": "hello:1", **KAFKA, "SourceAccessConfigurations": secret}
    assert "(SASL_SCRAM_512_AUTH) are not looked up here" in await api.refused("POST", "", body)
    api.clusters = {"m": KafkaConnection(name="m", bootstrap_servers=("b:1",), event_source_arn=CLUSTER)}
    shown = await api.create(**msk, **failed, AmazonManagedKafkaEventSourceConfig={"ConsumerGroupId": "mine"})
    runs = api.runs(shown)
    assert (runs.source, runs.group, runs.on_failure) == ("kafka://m/orders", "mine", "kafka://m/failed")
    assert api.runs(shown).event_source_arn == shown["EventSourceArn"] == CLUSTER
    assert "SelfManagedEventSource" not in shown


# --- refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"FunctionName": "nobody", "EventSourceArn": QUEUE}, "Function does not exist"),
        ({"FunctionName": "hello:2", "EventSourceArn": QUEUE}, "Function does not exist"),
        ({"EventSourceArn": "arn:aws:iam::000000000000:role/r"}, "Unrecognized event source."),
        ({}, "Unrecognized event source."),
        ({"EventSourceArn": "arn:aws:mq:us-east-1:000000000000:broker:b:b-1"}, "Amazon MQ is not offered as an event source"),
        ({"EventSourceArn": STREAM}, "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: Member must not be null."),
        ({"EventSourceArn": TABLE, "StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": 1}, f"Unsupported starting position for arn type: {TABLE}"),
        ({"EventSourceArn": STREAM, "StartingPosition": "AT_TIMESTAMP"}, "StartingPositionTimestamp must be provided with StartingPosition AT_TIMESTAMP."),
        ({"EventSourceArn": STREAM, "StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": 9e10}, "StartingPositionTimestamp must not be in the future."),
        ({"EventSourceArn": QUEUE, "DestinationConfig": {}}, "Unsupported DestinationConfig parameter for given event source mapping type."),
        ({"EventSourceArn": QUEUE, "StartingPosition": "LATEST"}, "StartingPosition is not valid for SQS event sources."),
        ({**KINESIS, "ScalingConfig": {"MaximumConcurrency": 2}}, "Unsupported ScalingConfig parameter for given event source mapping type."),
        ({"EventSourceArn": QUEUE, "BatchSize": 11}, "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"),
        ({"EventSourceArn": f"{QUEUE}.fifo", "BatchSize": 11, "MaximumBatchingWindowInSeconds": 1}, "Batch size must be less than or equal to 10 for a FIFO queue"),
        ({**KINESIS, "FilterCriteria": {"Filters": [{"Pattern": "null"}]}}, "Invalid filter pattern definition."),
        ({**KINESIS, "FilterCriteria": {"Filters": [{"Pattern": '{"k":"v"}'}]}}, "Invalid filter pattern definition."),
        ({**KINESIS, "FilterCriteria": {"Filters": [{}]}}, "Invalid filter pattern definition."),
        ({**KINESIS, "DestinationConfig": {"OnFailure": {"Destination": "arn:aws:iam::1:x"}}}, "The destination ARN arn:aws:iam::1:x is invalid."),
        ({**KINESIS, "TumblingWindowInSeconds": 1, "ParallelizationFactor": 2}, "TumblingWindowInSeconds is not supported with a ParallelizationFactor greater than 1."),
        ({"SelfManagedEventSource": BROKERS}, "Required 'topics' parameter is missing."),
        ({**KAFKA, "EventSourceArn": QUEUE}, "Only one of EventSourceArn and SelfManagedEventSource can be given."),
        ({**KAFKA, "DestinationConfig": {"OnFailure": {"Destination": "kafka://topic"}}}, "The destination kafka://topic is the source's own topic."),
        ({**KAFKA, "SelfManagedKafkaEventSourceConfig": {"SchemaRegistryConfig": {}}}, "SchemaRegistryConfig is not offered: the function gets the value's own bytes"),
        ({"EventSourceArn": QUEUE, "KMSKeyArn": "arn:aws:kms:us-east-1:000000000000:key/k"}, "KMSKeyArn is not offered: filters are kept as they are"),
    ],
)  # fmt: skip
async def test_what_cannot_be_made_is_refused_in_awss_words(api, more, text):
    assert await api.refused("POST", "", {"FunctionName": "hello", **more}) == text
    assert api.rows.rows == {}


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"FunctionName": None, "EventSourceArn": QUEUE}, "Value null at 'functionName' failed"),
        ({"EventSourceArn": "queue"}, "Value 'queue' at 'eventSourceArn' failed"),
        ({"EventSourceArn": QUEUE, "BatchSize": 0}, "Value '0' at 'batchSize' failed to satisfy constraint: Member must have value greater than or equal to 1"),
        ({**KINESIS, "ParallelizationFactor": 11}, "less than or equal to 10"),
        ({**KINESIS, "StartingPosition": "MIDDLE"}, "enum value set: [TRIM_HORIZON, LATEST, AT_TIMESTAMP]"),
        ({**KINESIS, "MaximumRecordAgeInSeconds": 30}, "Value '30' at 'maximumRecordAgeInSeconds'"),
        ({**KINESIS, "FunctionResponseTypes": ["x"]}, "enum value set: [ReportBatchItemFailures]"),
        ({"EventSourceArn": QUEUE, "ScalingConfig": {"MaximumConcurrency": 1}}, "greater than or equal to 2"),
        ({**KAFKA, "Topics": ["."]}, "at 'topics'"),
        ({"SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["no port"]}}}, "host:port"),
    ],
)  # fmt: skip
async def test_what_has_no_shape_is_a_validation_error(api, more, text):
    assert text in await api.refused("POST", "", {"FunctionName": "hello", **more}, code="ValidationException")


async def test_a_source_that_is_not_there_or_a_queue_that_hides_too_short(api):
    api.look = SourceLook(problem=f"Stream not found: {STREAM}")
    assert await api.refused("POST", "", {"FunctionName": "hello", **KINESIS}) == f"Stream not found: {STREAM}"
    api.look = SourceLook(visibility_s=2.0)
    text = await api.refused("POST", "", {"FunctionName": "hello", "EventSourceArn": QUEUE})
    assert text == "Queue visibility timeout: 2 seconds is less than Function timeout: 3 seconds"
    assert [mapping.source for mapping in api.looked] == [STREAM, QUEUE]
    api.look = SourceLook(visibility_s=3.0)
    await api.create(EventSourceArn=QUEUE)


async def test_a_second_one_of_source_and_function_is_a_conflict(api):
    for more, text in (
        (KINESIS, f'The event source arn (" {STREAM} ") and function (" hello ") provided mapping already exists. '),
        ({"EventSourceArn": QUEUE}, f'An event source mapping with SQS arn (" {QUEUE} ") and function (" hello ") already exists. '),
        (KAFKA, f'An event source mapping with event source ("kafka:1000"), function ("{FUNCTION}"), topics ("topic") already exists. '),
    ):  # fmt: skip
        made = await api.create(**more)
        body = {"FunctionName": FUNCTION, **more}
        told = await api.refused("POST", "", body, 409, "ResourceConflictException")
        assert told == f"{text}Please update or delete the existing mapping with UUID {made['UUID']}"
        other = await api.create(function="hello:live", **more)
        moved = {"FunctionName": "hello"}
        await api.refused("PUT", f"/{other['UUID']}", moved, 409, "ResourceConflictException")


# --- those of the file ------------------------------------------------------------------------------------------


async def test_those_of_the_file_are_shown_and_are_read_only(api):
    mapping = EventSourceMapping(name="orders", source=STREAM, function="hello")
    status = MappingStatus(mapping=mapping, state=MappingState.ENABLED, reason="", result="OK", modified_at=NOW)
    api.world.mappings.add(status)
    shown = await api.json("GET", f"/{mapping.uuid}")
    assert (shown["UUID"], shown["State"]) == (mapping.uuid, "Enabled")
    for method, body in (("PUT", {"BatchSize": 1}), ("DELETE", None)):
        text = await api.refused(method, f"/{mapping.uuid}", body)
        assert text.startswith(f"The event source mapping {mapping.uuid} (orders) is declared in the daemon's file")
    text = await api.refused("POST", "", {"FunctionName": "hello", **KINESIS}, 409, "ResourceConflictException")
    assert text.endswith(mapping.uuid)


# --- changes ----------------------------------------------------------------------------------------------------


async def test_an_update_keeps_what_it_leaves_out(api):
    pattern = '{"data": {"id": [1]}}'
    made = await api.create(**KINESIS, BatchSize=5, FilterCriteria={"Filters": [{"Pattern": pattern}]})
    at = f"/{made['UUID']}"
    changed = await api.json("PUT", at, {"MaximumRetryAttempts": 3, "StartingPosition": "TRIM_HORIZON"}, 202)
    assert (changed["State"], changed["BatchSize"], changed["MaximumRetryAttempts"]) == ("Updating", 5, 3)
    assert changed["FilterCriteria"] == {"Filters": [{"Pattern": pattern}]}
    assert changed["StartingPosition"] == "LATEST"  # where it begins cannot be changed
    runs = api.runs(made)
    assert (runs.filters, runs.starting_position) == ((pattern,), StartingPosition.LATEST)

    moved = await api.json("PUT", at, {"FilterCriteria": {}, "FunctionName": "hello:live", "Enabled": False}, 202)
    assert (moved["State"], moved["FunctionArn"]) == ("Disabling", f"{FUNCTION}:live")
    assert "FilterCriteria" not in moved
    assert api.runs(made) == replace(runs, filters=(), function="hello:live", enabled=False)
    assert (await api.json("PUT", at, {"Enabled": True}, 202))["State"] == "Enabling"
    assert (await api.json("GET", at))["LastModified"] >= made["LastModified"]
    assert await api.refused("PUT", at, {"FunctionName": "nobody"}) == "Function does not exist"
    text = await api.refused("PUT", at, {"SourceAccessConfigurations": []})
    assert text == "Unsupported SourceAccessConfigurations parameter for given event source mapping type."


async def test_one_that_is_in_use_is_neither_changed_nor_deleted(api):
    made = await api.create(EventSourceArn=QUEUE)
    at = f"/{made['UUID']}"
    api.busy.add(made["UUID"])
    text = await api.refused("DELETE", at, None, 400, "ResourceInUseException")
    assert text == "Cannot delete the event source mapping because it is in use."
    text = await api.refused("PUT", at, {"BatchSize": 1}, 400, "ResourceInUseException")
    assert text == "Cannot update the event source mapping because it is in use."
    api.busy.clear()
    gone = await api.json("DELETE", at, None, 202)
    assert (gone["State"], gone["UUID"]) == ("Deleting", made["UUID"])
    for method in ("GET", "PUT", "DELETE"):
        text = await api.refused(method, at, {}, 404, "ResourceNotFoundException")
        assert text == "The resource you requested does not exist."
    assert api.rows.rows == {}


async def test_it_is_found_by_function_and_source_and_page_by_page(api):
    for source, function in ((QUEUE, "hello"), (QUEUE, "hello:live"), (f"{QUEUE}2", "hello")):
        await api.create(function=function, EventSourceArn=source)

    async def listed(query):
        found = await api.json("GET", f"?{query}")
        return [(each["EventSourceArn"], each["FunctionArn"]) for each in found["EventSourceMappings"]]

    assert len(await listed("FunctionName=hello")) == 3
    assert await listed("FunctionName=hello:live") == [(QUEUE, f"{FUNCTION}:live")]
    assert await listed(f"EventSourceArn={QUEUE}2") == [(f"{QUEUE}2", FUNCTION)]
    first = await api.json("GET", "?MaxItems=2")
    second = await api.json("GET", f"?MaxItems=2&Marker={first['NextMarker']}")
    assert "NextMarker" not in second
    uuids = [each["UUID"] for page in (first, second) for each in page["EventSourceMappings"]]
    assert uuids == sorted(uuids)
    assert len(set(uuids)) == 3


async def test_what_was_made_is_there_after_a_restart(api):
    made = await api.create(**KINESIS, Tags={"team": "a"})
    before = api.made.values()
    again = MadeMappings(
        store=api.rows, clusters=dict, look=api._look, changed=api._changed, is_busy=bool, clock=api.world.clock
    )
    await again.open()
    assert again.values() == before
    assert again.get(made["UUID"]).tags == {"team": "a"}


async def test_tags_of_a_mapping(api):
    made = await api.create(EventSourceArn=QUEUE, Tags={"team": "a", "stage": "dev"})
    assert "Tags" not in made
    tags = f"/2017-03-31/tags/{made['EventSourceMappingArn']}"
    assert await api.tags("GET", tags) == (200, {"Tags": {"team": "a", "stage": "dev"}})
    runs, before = api.runs(made), await api.json("GET", f"/{made['UUID']}")
    assert await api.tags("POST", tags, {"Tags": {"team": "b", "": ""}}) == (400, "InvalidParameterValueException")
    assert await api.tags("POST", tags, {"Tags": {"aws:x": "b"}}) == (400, "InvalidParameterValueException")
    assert await api.tags("POST", tags, {"Tags": {"team": "b" * 257}}) == (400, "InvalidParameterValueException")
    assert await api.tags("POST", tags, {"Tags": {f"k{n}": "" for n in range(49)}}) == (
        400,
        "InvalidParameterValueException",
    )
    assert await api.tags("POST", tags, {"Tags": {"team": "b", "new": ""}}) == (204, None)
    assert await api.tags("DELETE", f"{tags}?tagKeys=stage&tagKeys=none") == (204, None)
    assert await api.tags("GET", tags) == (200, {"Tags": {"team": "b", "new": ""}})
    assert (await api.rows.load())[made["UUID"]].tags == {"team": "b", "new": ""}
    assert api.runs(made) is runs, "what runs is left alone"
    assert await api.json("GET", f"/{made['UUID']}") == before
    await api.json("PUT", f"/{made['UUID']}", {"BatchSize": 3}, 202)
    assert await api.tags("GET", tags) == (200, {"Tags": {"team": "b", "new": ""}})
    for other in (tags.replace("us-east-1", "us-west-2"), tags.replace("0" * 12, "1" * 12), tags[:-1] + "%20"):
        assert await api.tags("GET", other) == (404, "ResourceNotFoundException")
        assert await api.tags("POST", other, {"Tags": {"a": "b"}}) == (404, "ResourceNotFoundException")
        assert await api.tags("DELETE", f"{other}?tagKeys=a") == (404, "ResourceNotFoundException")


async def test_the_files_mappings_have_no_tags(api):
    mapping = EventSourceMapping(name="declared", source=QUEUE, function="hello")
    api.world.mappings.add(
        MappingStatus(mapping=mapping, state=MappingState.ENABLED, reason="", result="", modified_at=NOW)
    )
    tags = f"/2017-03-31/tags/arn:aws:lambda:us-east-1:000000000000:event-source-mapping:{mapping.uuid}"
    assert await api.tags("GET", tags) == (200, {"Tags": {}})
    assert await api.tags("POST", tags, {"Tags": {"a": "b"}}) == (400, "InvalidParameterValueException")


async def test_a_pause_by_the_command_line_is_what_the_api_shows(api):
    made = await api.create(EventSourceArn=QUEUE)
    answer = await api.world.post(f"/mappings/{made['UUID']}/pause")
    assert (answer.status, answer.json()["state"]) == (200, "Disabled")
    assert api.made.get(made["UUID"]).enabled is False
    await api.world.post(f"/mappings/{made['UUID']}/resume")
    assert (await api.json("GET", f"/{made['UUID']}"))["State"] == "Enabled"


async def test_where_no_mappings_are_made_that_is_said(world):
    world.app = ApiApp(world.services, token=TOKEN, rules=AccessRules(asks=False))
    answer = await world.ask("POST", PATH, body={}, token=None)
    assert "CreateEventSourceMapping is not offered" in answer.json()["message"]


async def test_a_reset_ends_and_forgets_all_of_them(api):
    await api.create(EventSourceArn=QUEUE)
    changed = []

    async def tell():
        changed.append(api.made.values())

    api.made._changed = tell
    await api.made.clear()
    assert (changed, api.made.values(), await api.rows.load()) == ([[]], [], {})
    await api.made.clear()
    assert changed == [[]]


# --- name spaces ------------------------------------------------------------------------------------------------


async def test_each_account_and_region_sees_its_own(api):
    abroad = "hello@eu-west-1.222222222222"
    arn = "arn:aws:lambda:eu-west-1:222222222222:function:hello"
    hello = api.world.catalog.known["hello"]
    api.world.catalog.known[abroad] = replace(hello, name=abroad, latest=replace(hello.latest, name=abroad, arn=arn))
    signed = "AWS4-HMAC-SHA256 Credential=222222222222/20260101/eu-west-1/lambda/aws4_request, SignedHeaders=host;x-amz-date, Signature=x"
    headers = {"authorization": signed}

    async def there(method, path="", body=None):
        answer = await api.ask(method, path, body, headers=headers)
        return answer.status, answer.json()

    here = await api.create(EventSourceArn=QUEUE)
    body = {"FunctionName": "hello:live", "EventSourceArn": QUEUE}
    status, made = await there("POST", "", body)
    assert (status, made["FunctionArn"]) == (202, f"{arn}:live")
    assert made["EventSourceMappingArn"].startswith("arn:aws:lambda:eu-west-1:222222222222:event-source-mapping:")
    assert api.runs(made).function == f"{abroad}:live"
    assert (await there("POST", "", body))[0] == 409

    assert [each["UUID"] for each in (await api.json("GET"))["EventSourceMappings"]] == [here["UUID"]]
    for query in ("", "?FunctionName=hello", f"?FunctionName={arn}"):
        assert [each["UUID"] for each in (await there("GET", query))[1]["EventSourceMappings"]] == [made["UUID"]]
    for method, change in (("GET", None), ("PUT", {"BatchSize": 2}), ("DELETE", None)):
        assert (await there(method, f"/{here['UUID']}", change))[0] == 404
        await api.refused(method, f"/{made['UUID']}", change, 404, "ResourceNotFoundException")
    assert (await there("PUT", f"/{made['UUID']}", {"FunctionName": "hello"}))[1]["FunctionArn"] == arn
    assert (await there("DELETE", f"/{made['UUID']}"))[0] == 202
