"""What a newer version kept is refused by name, and nothing of it is dropped; what is damaged is told as such."""

import orjson
import pytest

from bridge.core.errors import StoreCorrupt, StoreTooNew
from bridge.registry import made, mapped
from bridge.registry.layers import LayerName, LayerVersion, pack_layer, unpack_layer
from bridge.registry.made import MadeAlias, MadeFunction, MadeVersion
from bridge.registry.mapped import MadeMapping
from bridge.registry.urls import FunctionUrl, FunctionUrls
from tests.documents import MemoryDocuments

F = "arn:aws:lambda:us-east-1:000000000000:function:f"
URL = FunctionUrl(id="a" * 32, function=F, auth_type="AWS_IAM", created_at="then", modified_at="then")
MAPPING = MadeMapping(uuid="u", function="f", kind="sqs", settings={"BatchSize": 1}, modified_at=1.0, tags={"a": "b"})
LAYER = LayerVersion(
    layer=LayerName("000000000000", "us-east-1", "tools"), version=1, package="ab", code_size=7, created_at="now"
)
FUNCTION = MadeFunction(
    name="f",
    latest=MadeVersion(settings={}, package="ab", code_size=7, layers=[], modified_at="now"),
    aliases={"live": MadeAlias(name="live", version="1")},
)


async def test_a_url_of_a_newer_version():
    store = MemoryDocuments()
    await FunctionUrls(store).put(URL)
    urls = FunctionUrls(store)
    await urls.open()
    assert urls.find(URL.id) == URL
    kept = store.documents[F, ""]
    store.documents[F, ""] = orjson.dumps({**orjson.loads(kept), "allowed_ips": ["10.0.0.0/8"]})
    with pytest.raises(StoreTooNew, match=f"the function URL of {F} was kept by a newer bridge .it has allowed_ips,"):
        await FunctionUrls(store).open()
    store.documents[F, ""] = b'{"id": "a"}'
    with pytest.raises(StoreCorrupt, match="it has no auth_type, created_at, modified_at"):
        await FunctionUrls(store).open()


def test_a_mapping_of_a_newer_version():
    kept = mapped.pack(MAPPING)
    assert mapped.unpack(kept) == MAPPING
    with pytest.raises(StoreTooNew, match=r"an event source mapping was kept by a newer bridge \(it has role, shape,"):
        mapped.unpack(orjson.dumps({**orjson.loads(kept), "shape": 1, "role": 2}))
    for damaged in (b"[]", b"{}"):
        with pytest.raises(StoreCorrupt, match="an event source mapping cannot be read"):
            mapped.unpack(damaged)


def test_a_layer_of_a_newer_version():
    kept = pack_layer(LAYER)
    assert unpack_layer(LAYER.layer, 1, kept) == LAYER
    for more in ({"signed": True}, {"statements": {"s": {"principal": "*", "until": "noon"}}}):
        with pytest.raises(StoreTooNew, match=r"it has (signed|until), which"):
            unpack_layer(LAYER.layer, 1, orjson.dumps({**orjson.loads(kept), **more}))


@pytest.mark.parametrize(("row", "told"), [(("version", "$LATEST"), "version"), (("alias", "live"), "alias")])
def test_a_function_of_a_newer_version(row, told):
    rows = {key: made.pack(part) for key, part in made.parts(FUNCTION).items()}
    assert made.unpack("f", rows, last_version=0) == FUNCTION
    rows[row] = orjson.dumps({**orjson.loads(rows[row]), "canary": 1})
    with pytest.raises(StoreTooNew, match=f"{told} .* of the function f was kept by a newer bridge .it has canary,"):
        made.unpack("f", rows, last_version=0)
