"""Packages in requests: decoded piece by piece, one request after the other, and nothing but base64."""

import asyncio
import base64
import json

import pytest

from bridge.api.awslambda import uploads
from bridge.api.awslambda.errors import Refused
from bridge.api.awslambda.uploads import Upload, Uploads


@pytest.fixture(params=[4, 1 << 20], ids=["taken out", "parsed"])
def decoded(request, tmp_path, monkeypatch):
    """Return what a ZipFile decodes to, eight characters at a time; large ones are taken out before the rest is parsed."""
    monkeypatch.setattr(uploads, "DECODED_CHARS", 8)
    monkeypatch.setattr(uploads, "LARGE_CHARS", request.param)

    def decode(text, body=None):
        (tmp_path / "request").write_text(body or json.dumps({"Code": {"ZipFile": text}, "FunctionName": "f"}))
        members, place = uploads._decode(tmp_path / "request", tmp_path / "zip", "Code")
        assert (members["FunctionName"], members["Code"], place) == ("f", {}, None)
        return (tmp_path / "zip").read_bytes()

    return decode


@pytest.mark.parametrize("size", range(1, 26))
def test_whatever_its_length_is(decoded, size):
    data = bytes(range(size))

    assert decoded(base64.b64encode(data).decode()) == data


@pytest.mark.parametrize(
    "text", ["YQ==YWJjZGVm", "YWJjZGU=YWJj", "YWJjZGVm=", "YWJjZ", "YWJj\u00e9GVm", "YWJj ZGVm", "====", 7, ["YQ=="]]
)
def test_what_is_no_base64(decoded, text):
    with pytest.raises(Refused, match="ZipFile is not base64"):
        decoded(text)


@pytest.mark.parametrize(
    "body",
    [
        '{"FunctionName": "f", "Code": {"ZipFile" \n: "YWJjZGVm"}}',
        '{"Tags": {"ZipFile": "Z2hpamts"}, "Code": {"ZipFile": "YWJjZGVm"}, "FunctionName": "f"}',
        '{"Description": "\\"ZipFile\\": \\"Z2hpamts\\"", "Code": {"ZipFile": "YWJjZGVm"}, "FunctionName": "f"}',
        '{"Description": "ZipFile", "Code": {"ZipFile": "YWJjZGVm"}, "FunctionName": "f"}',
        '{"Code": {"ZipFile": "YWJj\\u005aGVm"}, "FunctionName": "f"}',
    ],
)
def test_wherever_it_stands(decoded, body):
    assert decoded("", body) == b"abcdef"


async def test_two_requests_are_not_decoded_at_once(tmp_path, monkeypatch):
    running = []

    def decode(source, target, member):
        running.append(1)
        assert len(running) == 1
        target.write_bytes(source.read_bytes())
        running.pop()
        return {}, None

    monkeypatch.setattr(uploads, "_decode", decode)
    (tmp_path / "request").write_bytes(b"{}")
    names = iter(range(8))
    taken = Uploads(lambda: tmp_path / str(next(names)))

    async def take():
        async with taken.decode(Upload(body_hash="", file=tmp_path / "request"), region="us-east-1") as (_, file):
            return file.read_bytes()

    assert await asyncio.gather(*(take() for _ in range(8))) == [b"{}"] * 8
