"""Documents that hang on functions: durable before they count, no write where nothing changes, and what is damaged."""

import pytest

from bridge.core.errors import StoreCorrupt, StoreError
from bridge.registry.attached import Documents
from tests.documents import MemoryDocuments

F, G = "arn:aws:lambda:us-east-1:000000000000:function:f", "arn:aws:lambda:us-east-1:000000000000:function:g"


class Store(MemoryDocuments):
    """Counts what is written, and fails when it is told to."""

    def __init__(self):
        super().__init__()
        self.writes, self.fails = 0, False

    async def save(self, place, document):
        self._write()
        await super().save(place, document)

    async def forget(self, function, qualifier):
        self._write()
        await super().forget(function, qualifier)

    def _write(self):
        self.writes += 1
        if self.fails:
            raise StoreError("full")


async def test_what_is_set_is_read_back_and_what_is_forgotten_is_gone():
    store = Store()
    documents = Documents(store)
    for place in ((F, ""), (F, "live"), (G, "live")):
        await documents.set(place, {"at": place[1]})
    again = Documents(store)
    await again.open()
    assert (
        again.all()
        == documents.all()
        == {(F, ""): {"at": ""}, (F, "live"): {"at": "live"}, (G, "live"): {"at": "live"}}
    )

    await again.forget(F, "live")
    assert list(again.all()) == list(store.documents) == [(F, ""), (G, "live")]
    await again.forget(F, None)
    await again.set((G, "live"), None)
    assert again.all() == store.documents == {}


async def test_the_disk_is_left_alone_where_there_is_nothing_to_delete():
    store = Store()
    documents = Documents(store)
    await documents.set((F, ""), None)
    await documents.forget(F, None)

    assert store.writes == 0


async def test_a_change_that_was_not_stored_does_not_count():
    store = Store()
    documents = Documents(store)
    await documents.set((F, ""), {"n": 1})
    store.fails = True
    for change in (documents.set((F, ""), {"n": 2}), documents.set((F, ""), None), documents.forget(F, None)):
        with pytest.raises(StoreError):
            await change

    assert documents.get((F, "")) == {"n": 1}


async def test_a_damaged_document_is_told_as_such():
    store = Store()
    store.documents[F, ""] = b"{"
    with pytest.raises(StoreCorrupt):
        await Documents(store).open()
