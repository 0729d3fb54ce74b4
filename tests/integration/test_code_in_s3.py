"""Functions and layers from S3: an object, one of its versions, and AWS's words for what cannot be had."""

import json

import pytest
from botocore.exceptions import ClientError

from tests.lambda_client import lambda_client
from tests.zips import zipped

pytestmark = [pytest.mark.integration]

CONFIG = """
account = "123456789012"
region = "eu-central-1"
api = {{ auth = "none", code_connection = "aws" }}
{connection}
"""
CODE = "import tools\ndef handler(event, context):\n    return ['%s', tools.VALUE]\n"


def test_code_and_layers_from_s3(daemon, moto):
    bridge = daemon(CONFIG.format(connection=moto.connection()))
    api = lambda_client(bridge, "123456789012", region="eu-central-1")
    s3, bucket = moto.client("s3"), moto.name()
    s3.create_bucket(Bucket=bucket)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    first = s3.put_object(Bucket=bucket, Key="a/app.zip", Body=zipped({"app.py": CODE % "one"}))["VersionId"]
    s3.put_object(Bucket=bucket, Key="a/app.zip", Body=zipped({"app.py": CODE % "two"}))
    s3.put_object(Bucket=bucket, Key="layer.zip", Body=zipped({"python/tools.py": "VALUE = 'from S3'"}))
    s3.put_object(Bucket=bucket, Key="no.zip", Body=b"no zip")

    layer = api.publish_layer_version(LayerName="tools", Content={"S3Bucket": bucket, "S3Key": "layer.zip"})
    given = {
        "FunctionName": "made", "Runtime": "python3.13", "Handler": "app.handler", "Layers": [layer["LayerVersionArn"]],
        "Role": "arn:aws:iam::123456789012:role/r",
    }  # fmt: skip
    old = {"S3Bucket": bucket, "S3Key": "a/app.zip", "S3ObjectVersion": first}
    for code, error in (
        (
            {"S3Bucket": bucket, "S3Key": "none"},
            r"GetObject. S3 Error Code: NoSuchKey. S3 Error Message: The specified key",
        ),
        (
            {"S3Bucket": moto.name(), "S3Key": "k"},
            r"GetObject. S3 Error Code: NoSuchBucket. S3 Error Message: The specified",
        ),
        ({"S3Bucket": bucket, "S3Key": "no.zip"}, "Could not unzip uploaded file"),
    ):
        with pytest.raises(ClientError, match=error):
            api.create_function(Code=code, **given)
    api.create_function(Code=old, **given)
    api.get_waiter("function_active_v2").wait(FunctionName="made", WaiterConfig={"Delay": 0.1})
    assert json.loads(api.invoke(FunctionName="made")["Payload"].read()) == ["one", "from S3"]

    dry = api.update_function_code(FunctionName="made", S3Bucket=bucket, S3Key="a/app.zip", DryRun=True)
    assert dry["CodeSha256"] != api.get_function_configuration(FunctionName="made")["CodeSha256"]
    api.update_function_code(FunctionName="made", S3Bucket=bucket, S3Key="a/app.zip")
    api.get_waiter("function_updated_v2").wait(FunctionName="made", WaiterConfig={"Delay": 0.1})
    assert json.loads(api.invoke(FunctionName="made")["Payload"].read()) == ["two", "from S3"]
