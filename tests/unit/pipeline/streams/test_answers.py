"""Whatever a function answers is success, a list of records of the batch, or a mistake: never a crash."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.events.kafka import KafkaShape
from bridge.pipeline.streams.answers import SUCCESS, read_answer
from bridge.pipeline.streams.batch import Batch
from bridge.testing.source import ScriptedShape
from tests.unit.pipeline.streams.chunks import batches, positions_of, pure

scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=3)
names = st.sampled_from(("batchItemFailures", "itemIdentifier", "state", "topic-partition", "offset", "x"))
json = st.recursive(
    scalars | st.sampled_from(("s-0:0", "s-0", "s-1:1")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
failures = st.builds(
    lambda items, state: {"batchItemFailures": [{"itemIdentifier": item} for item in items], "state": state},
    st.lists(json | st.builds(lambda at: {"topic-partition": "s-0", "offset": at}, st.integers(0, 9)), max_size=4),
    json,
)
shapes = st.sampled_from((ScriptedShape(), KafkaShape(topic="s", bootstrap_servers="k:9092")))


@pure
@given(st.binary() | (json | failures).map(orjson.dumps), batches(), shapes, st.booleans(), st.booleans())
def test_any_answer_comes_to_something(payload, batch, shape, reports, windowed):
    answer = read_answer(payload, batch, shape, reports=reports, windowed=windowed)
    known = {shape.identifier(chunk, index) for chunk, index in batch.records()}

    assert answer.failed <= known
    assert not (answer.failed and answer.mistake)
    if not reports and not windowed:
        assert answer == SUCCESS
    if windowed and not answer.mistake:
        assert isinstance(orjson.loads(answer.state), dict)


@pure
@given(batches(), st.data())
def test_valid_identifiers_are_the_failed_records(batch, data):
    shape = ScriptedShape()
    named = data.draw(st.sets(st.sampled_from([f"{shard}:{position}" for shard, position in positions_of(batch)])))
    payload = orjson.dumps({"batchItemFailures": [{"itemIdentifier": name} for name in named]})

    assert read_answer(payload, batch, shape, reports=True, windowed=False).failed == named


@pytest.mark.parametrize("depth", [200, 300, 900, 5000])
def test_a_state_that_is_nested_too_deep_is_a_mistake(depth):
    payload = b'{"state":{"x":' + b"[" * depth + b"]" * depth + b"}}"
    answer = read_answer(payload, Batch(parts=[]), ScriptedShape(), reports=False, windowed=True)

    assert bool(answer.mistake) == (depth > 250)
