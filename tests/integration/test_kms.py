"""Variables sealed by a key of KMS: what KMS answers, and a daemon whose key is disabled."""

import json
from contextlib import asynccontextmanager

import pytest
from botocore.exceptions import ClientError

from bridge.aws.clients import AwsClients
from bridge.aws.kms import KmsKeys
from bridge.core.connection import AwsConnection
from bridge.core.errors import KeyRefused
from tests.brokers.aws import KEY, SECRET
from tests.harness import free_ports
from tests.lambda_client import lambda_client
from tests.zips import zipped

pytestmark = [pytest.mark.integration]

CANARY = "canary-of-a-key-of-kms"
CONTEXT = {"FunctionArn": "arn:aws:lambda:us-east-1:000000000000:function:f", "Name": "Environment", "Version": "1"}
CODE = "import os\n\ndef handler(event, context):\n    return len(os.environ['SECRET'])\n"


@asynccontextmanager
async def keys(endpoint_url):
    connection = AwsConnection(
        name="aws", region="us-east-1", endpoint_url=endpoint_url, access_key_id=KEY, secret_access_key=SECRET
    )
    clients = AwsClients()
    try:
        yield KmsKeys(clients, find=lambda _: connection)
    finally:
        await clients.close()


async def refused(work):
    with pytest.raises(KeyRefused) as found:
        await work
    return found.value


async def test_data_keys(ministack):
    kms = ministack.client("kms")
    arn = kms.create_key()["KeyMetadata"]["Arn"]
    alias = ministack.arn("kms", "alias/" + ministack.name())
    kms.create_alias(AliasName=alias.rpartition(":")[2], TargetKeyId=arn)

    async with keys(ministack.endpoint_url) as asked:
        for key in (arn, alias):
            plain, wrapped, by = await asked.generate(key, CONTEXT)
            assert (len(plain), plain in wrapped, by) == (32, False, arn)
            assert await asked.decrypt(by, wrapped, CONTEXT) == plain
            moved = await refused(asked.decrypt(by, wrapped, CONTEXT | {"Version": "2"}))
            assert (moved.code, moved.is_lasting) == ("KMSInvalidStateException", True)
        missing = await refused(asked.generate(arn[:-4] + "0000", CONTEXT))
        assert missing.code == "KMSNotFoundException"
        kms.disable_key(KeyId=arn)
        disabled = await refused(asked.decrypt(arn, wrapped, CONTEXT))
        assert disabled.code == "KMSDisabledException"
        assert "unable to decrypt the environment variables because the KMS key used is disabled" in str(disabled)
        disabled = await refused(asked.generate(arn, CONTEXT))
        assert "unable to configure access to your environment variables because" in str(disabled)


async def test_a_kms_that_is_not_there():
    async with keys(f"http://127.0.0.1:{free_ports(1)[0]}") as asked:
        error = await refused(asked.generate("arn:aws:kms:us-east-1:000000000000:key/k", CONTEXT))
    assert (error.code, error.is_lasting, "could not be reached" in str(error)) == (
        "KMSInvalidStateException", False, True,
    )  # fmt: skip


def test_a_daemon_whose_key_is_disabled(daemon, ministack):
    kms = ministack.client("kms")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    bridge = daemon('api = { auth = "none" }\nregion = "us-east-1"\n' + ministack.connection())
    given = {
        "Runtime": "python3.12", "Handler": "app.handler", "Role": "arn:aws:iam::000000000000:role/r",
        "Code": {"ZipFile": zipped({"app.py": CODE})}, "Environment": {"Variables": {"SECRET": CANARY}},
    }  # fmt: skip

    def create(name, **more):
        api = lambda_client(bridge)
        api.create_function(FunctionName=name, **given, **more)
        api.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.1})

    def invoke(name):
        return lambda_client(bridge).invoke(FunctionName=name)["Payload"].read()

    def again():
        bridge.kill9()
        bridge.restart()

    create("sealed", KMSKeyArn=key)
    create("plain")
    shown = json.loads(bridge.cli("keys", "show", "--json").stdout)
    assert [(each["name"], each["values"]) for each in shown["keys"]] == [("aws/lambda", 1), (key, 1)]
    again()
    assert (invoke("sealed"), invoke("plain")) == (b"22", b"22")

    kms.disable_key(KeyId=key)
    rotated = bridge.cli("keys", "rotate")
    assert (rotated.returncode, "1 value re-wrapped" in rotated.stdout) == (0, True), rotated
    assert invoke("plain") == b"22"
    again()
    assert invoke("plain") == b"22"
    for refused in (lambda: invoke("sealed"), lambda: create("another", KMSKeyArn=key)):
        with pytest.raises(ClientError) as error:
            refused()
        told = error.value.response
        assert (told["Error"]["Code"], told["ResponseMetadata"]["HTTPStatusCode"]) == ("KMSDisabledException", 502)
        assert CANARY not in str(told)
    shown = lambda_client(bridge).get_function_configuration(FunctionName="sealed")["Environment"]
    assert (list(shown), shown["Error"]["ErrorCode"]) == (["Error"], "KMSDisabledException")
    kms.enable_key(KeyId=key)
    again()
    assert invoke("sealed") == b"22"
