"""Documents of one kind in memory, by place: what policies, function URLs and the like are kept in."""


class MemoryDocuments:
    """`attached.DocumentStore` in a dict, which outlives the objects that use it."""

    def __init__(self):
        self.documents = {}

    async def load(self):
        return dict(self.documents)

    async def save(self, place, document):
        if document is None:
            self.documents.pop(place, None)
        else:
            self.documents[place] = document

    async def forget(self, function, qualifier):
        for place in [each for each in self.documents if each[0] == function and qualifier in (None, each[1])]:
            del self.documents[place]
