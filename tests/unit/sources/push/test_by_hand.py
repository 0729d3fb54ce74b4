"""Webhook routes that are given requests by hand: as if the sender had sent them, but for the signature."""

import json

import pytest

from bridge.core.errors import LaneFull, SourceError, StoreError, StoreFull
from bridge.core.invocation import InvocationType
from bridge.core.push import Accepted, Given, NotAccepted
from bridge.events.responses import HttpResponse
from bridge.sources.push import formats
from bridge.sources.push.formats import Format, Taken
from tests.unit.sources.push.test_webhook import DRY, SYNC, Setup, route


def event(setup):
    return json.loads(setup.intake.stored[-1].payload)


class Scripted(Format):
    """Reads what it is told, whatever the request."""

    reading = None

    async def read(self, request, *, request_id, received_at):
        return self.reading


@pytest.fixture
def scripted(monkeypatch):
    made = Scripted()
    monkeypatch.setattr(formats, "make_format", lambda name, context: made)
    return made


async def test_it_is_stored_as_a_request_of_the_route():
    setup = Setup(route(scheme="github", secrets=("secret",)))
    given = Given(data=b'{"a": 1}', query="?page=2", headers=(("X-GitHub-Event", "push"),))
    accepted = await setup.source.feed("hello", given)

    record = setup.intake.stored[0]
    assert accepted == Accepted(ids=(record.id,))
    assert (record.source, record.function) == ("hello", "hello:live")
    made = event(setup)
    assert (made["rawPath"], made["rawQueryString"], made["body"]) == ("/hooks/hello", "page=2", '{"a": 1}')
    assert made["headers"] == {
        "x-github-event": "push", "content-type": "application/json", "content-length": "8",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("data", "headers", "expected"),
    [
        (b"[1]", (), "application/json"),
        (b"a=b", (), "text/plain; charset=utf-8"),
        (b"\xff", (), "application/octet-stream"),
        (b"a=b", (("Content-Type", "application/x-www-form-urlencoded"),), "application/x-www-form-urlencoded"),
        (b"", (), None),
    ],
)
async def test_a_body_has_a_content_type(data, headers, expected):
    setup = Setup()
    await setup.source.feed("hello", Given(data=data, headers=headers))

    assert expected == event(setup)["headers"].get("content-type")


async def test_the_method_is_one_of_the_route_s():
    setup = Setup(route(methods=("PUT", "DELETE")))
    await setup.source.feed("hello", Given())
    assert event(setup)["requestContext"]["http"]["method"] == "PUT"
    await setup.source.feed("hello", Given(method="delete"))
    assert event(setup)["requestContext"]["http"]["method"] == "DELETE"

    with pytest.raises(NotAccepted, match="only PUT, DELETE here, not POST") as caught:
        await setup.source.feed("hello", Given(method="POST"))
    assert caught.value.status == 405


async def test_a_function_s_answer_comes_back():
    setup = Setup(route(invocation_type=SYNC))
    setup.invoker.answers["hello:live"] = lambda _id, _payload: b'{"statusCode": 201, "body": "made"}'
    accepted = await setup.source.feed("hello", Given(data=b"{}"))

    assert (accepted.status, accepted.body) == (201, b"made")
    assert accepted.ids == (setup.invoker.invoked[0][1],)


async def test_a_dry_run_runs_nothing():
    setup = Setup(route(invocation_type=DRY))
    setup.invoker.answers["hello:live"] = lambda _id, _payload: b"{}"

    assert await setup.source.feed("hello", Given()) == Accepted(ids=(), status=204, body=b"")


async def test_an_answer_at_once_stores_nothing(scripted):
    setup = Setup()
    scripted.reading = HttpResponse(status=200, headers=(), body=b"confirmed")

    assert await setup.source.feed("hello", Given()) == Accepted(ids=(), status=200, body=b"confirmed")
    assert setup.intake.stored == []


async def test_a_batch_has_an_id_each_and_says_what_was_there_before(scripted):
    setup = Setup()
    scripted.reading = [Taken(b"1", "a"), Taken(b"2", "b")]
    first = await setup.source.feed("hello", Given())
    scripted.reading = [Taken(b"1", "a"), Taken(b"3", "c")]
    second = await setup.source.feed("hello", Given())

    assert (len(first.ids), first.duplicates) == (2, 0)
    assert (second.ids[0], second.duplicates) == (first.ids[0], 1)


@pytest.mark.parametrize(("error", "status"), [(StoreFull("x"), 503), (LaneFull("x"), 503)])
async def test_what_finds_no_room_is_refused(error, status):
    setup = Setup()
    setup.intake.refusal = error
    with pytest.raises(NotAccepted) as caught:
        await setup.source.feed("hello", Given())

    assert caught.value.status == status


async def test_an_open_outcome_is_said_to_be_one():
    setup = Setup()
    setup.intake.refusal = StoreError("fsync")
    with pytest.raises(SourceError, match="it may be stored or not"):
        await setup.source.feed("hello", Given())


async def test_limits_are_the_route_s():
    setup = Setup(route(body_max_bytes=10))
    with pytest.raises(NotAccepted, match="larger than 10 bytes") as caught:
        await setup.source.feed("hello", Given(data=b"x" * 11))
    assert caught.value.status == 413

    setup = Setup(route(async_payload_max_bytes=100, invocation_type=InvocationType.EVENT))
    with pytest.raises(NotAccepted, match="Event takes 100") as caught:
        await setup.source.feed("hello", Given())
    assert caught.value.status == 413


@pytest.mark.parametrize("given", [Given(headers=(("ä", "b"),)), Given(headers=(("a", "☃"),)), Given(query="ä=1")])
async def test_what_no_request_can_have_is_refused(given):
    with pytest.raises(NotAccepted, match="holds"):
        await Setup().source.feed("hello", given)


async def test_an_unknown_route():
    with pytest.raises(NotAccepted) as caught:
        await Setup().source.feed("nobody", Given())

    assert caught.value.status == 404
