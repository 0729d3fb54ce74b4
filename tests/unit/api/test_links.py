"""Links to packages: unsigned, for ten minutes, of one package each, at the address that was asked."""

import base64
import hashlib
from urllib.parse import urlsplit

import pytest

from tests.unit.api.making import FUNCTIONS, Made, MemoryFunctions, zipped


@pytest.fixture
async def api(tmp_path):
    made = Made(tmp_path, MemoryFunctions())
    await made.made.open()
    yield made
    await made.world.close()


async def location(api, **more):
    await api.create()
    return (await api.json("GET", f"{FUNCTIONS}/made", **more))["Code"]["Location"]


async def follow(api, link, method="GET"):
    parts = urlsplit(link)
    return await api.ask(method, f"{parts.path}?{parts.query}")


async def test_a_link_gives_the_zip(api):
    link = await location(api)
    assert link.startswith("http://127.0.0.1:8581/content/")
    answer = await follow(api, link)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/zip")
    assert answer.body == base64.b64decode(zipped())
    shown = await api.json("GET", f"{FUNCTIONS}/made/configuration")
    assert base64.b64encode(hashlib.sha256(answer.body).digest()).decode() == shown["CodeSha256"]
    head = await follow(api, link, "HEAD")
    assert (head.status, head.headers["content-length"], head.body) == (200, str(len(answer.body)), b"")
    assert (await follow(api, link, "POST")).status == 405


async def test_a_link_ends_after_ten_minutes(api, monkeypatch):
    link, now = await location(api), api.world.clock.time()
    monkeypatch.setattr(api.world.clock, "time", lambda: now + 590)
    assert (await follow(api, link)).status == 200
    monkeypatch.setattr(api.world.clock, "time", lambda: now + 602)
    answer = await follow(api, link)
    assert (answer.status, "the link has ended" in answer.json()["error"]) == (403, True)


async def test_nothing_but_a_link_of_ours_is_answered(api):
    link = await location(api)
    path, _, query = link.removeprefix("http://127.0.0.1:8581").partition("?")
    expires, signature = query.split("&")
    later = f"Expires={int(expires.partition('=')[2]) + 1}"
    for other in (
        f"{path}?{later}&{signature}", f"/content/{'0' * 64}.zip?{query}", f"{path}?{expires}", path,
        f"{path}?{expires}&Signature=%C3%A9", f"{path}?Expires=x&{signature}", f"/content/../token?{query}",
        f"/content/?{query}", f"{path}?{expires}&{signature}0",
    ):  # fmt: skip
        answer = await api.ask("GET", other)
        assert (answer.status, answer.json()) == (403, {"error": "this is no link of this daemon"}), other


async def test_the_rules_of_host_and_origin_hold_for_links(api):
    link = await location(api)
    parts = urlsplit(link)
    for more in ({"host": "evil.example"}, {"headers": {"origin": "https://evil.example"}}):
        assert (await api.ask("GET", f"{parts.path}?{parts.query}", **more)).status == 403


async def test_a_link_is_for_the_address_that_was_asked(api):
    link = await location(api, host="localhost:9000", headers={"x-forwarded-proto": "https"})
    assert link.startswith("https://localhost:9000/content/")


async def test_a_package_that_is_gone(api, tmp_path):
    link = await location(api)
    api.packages.remove(api.made.get("made").latest.package)
    assert (await follow(api, link)).status == 404


async def test_layers_and_what_the_file_declares(api):
    body = {"Content": {"ZipFile": zipped(name="python/tools.py")}}
    made = await api.json("POST", "/2018-10-31/layers/tools/versions", body, 201)
    shown = await api.json("GET", "/2018-10-31/layers/tools/versions/1")
    for each in (made, shown):
        answer = await follow(api, each["Content"]["Location"])
        assert answer.body == base64.b64decode(zipped(name="python/tools.py"))
    declared = await api.json("GET", f"{FUNCTIONS}/hello")
    assert "Location" not in declared["Code"]  # a folder of the file's machine
