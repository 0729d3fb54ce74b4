"""Code from one folder of the file's, and from S3: what may be read, and AWS's words for what may not."""

import zipfile

import pytest

from bridge.api.awslambda.errors import Refused
from bridge.api.awslambda.uploads import CodePlace
from bridge.config.load import load
from bridge.daemon import code as module
from bridge.daemon.aws import AwsReach
from bridge.daemon.code import FileCode
from bridge.testing.clock import ManualClock

AWS = '[connections.{}]\ntype = "aws"\nregion = "{}"\n'


@pytest.fixture
def code_of(tmp_path):
    def make(text):
        file = tmp_path / "bridge.toml"
        file.write_text(text or "region = 'us-east-1'\n")
        settings = load(file).settings
        return FileCode(settings, aws=AwsReach(settings, clock=ManualClock()))

    return make


@pytest.fixture
def local(code_of, tmp_path):
    folder = tmp_path / "packages"
    (folder / "team" / "greet").mkdir(parents=True)
    (folder / "team" / "greet" / "app.py").write_text("the code")
    (folder / "greet.zip").write_bytes(b"a zip")
    (tmp_path / "outside").write_text("not for them")
    (folder / "way-out").symlink_to(tmp_path / "outside")
    return code_of(f"[api]\ncode_folder = '{folder}'\n")


async def fetched(code, tmp_path, key, *, bucket="local", version=""):
    target = tmp_path / "target"
    await code.fetch(CodePlace(bucket, key, version), region="us-east-1", target=target)
    return target


async def test_zips_and_folders(local, tmp_path):
    assert (await fetched(local, tmp_path, "greet.zip")).read_bytes() == b"a zip"
    (tmp_path / "target").unlink()
    with zipfile.ZipFile(await fetched(local, tmp_path, "team/greet")) as archive:
        assert archive.read("app.py") == b"the code"


@pytest.mark.parametrize(
    "key", ["gone.zip", "../outside", "team/../../outside", "way-out", "greet.zip/x", "a\0b", "/../outside"]
)
async def test_nothing_outside_the_folder(local, tmp_path, key):
    with pytest.raises(Refused) as caught:
        await fetched(local, tmp_path, key)
    assert (caught.value.code, str(caught.value)) == (
        "InvalidParameterValueException",
        "Error occurred while GetObject. S3 Error Code: NoSuchKey. S3 Error Message: The specified key does not exist.",
    )
    assert not (tmp_path / "target").exists()


async def test_more_than_a_package_may_hold(local, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "UNZIPPED_MAX_BYTES", 3)
    with pytest.raises(Refused, match="Unzipped size must be smaller than"):
        await fetched(local, tmp_path, "greet.zip")


@pytest.mark.parametrize(
    ("text", "count"),
    [("", 0), (AWS.format("a", "eu-central-1"), 0), (AWS.format("a", "us-east-1") + AWS.format("b", "us-east-1"), 2)],
)
async def test_without_a_connection_that_is_meant(code_of, tmp_path, text, count):
    with pytest.raises(Refused, match=rf"not offered here: {count} \[connections.X\] of type aws are in us-east-1"):
        await fetched(code_of(text), tmp_path, "k", bucket="bucket")


async def test_the_bucket_local_is_s3s_without_a_folder(code_of, tmp_path):
    with pytest.raises(Refused, match="Code in S3 is not offered here"):
        await fetched(code_of(""), tmp_path, "k")
