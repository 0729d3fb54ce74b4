"""The calls that common infrastructure tools make of Lambda, by boto3 at a daemon, in the order in which they make them."""

import pytest
from botocore.exceptions import ClientError

from tests.harness import wait_for
from tests.lambda_client import lambda_client
from tests.zips import zipped

pytestmark = [pytest.mark.integration]

ACCOUNT, REGION = "123456789012", "eu-central-1"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/r"
ARN = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:made"
LAYER = f"arn:aws:lambda:{REGION}:{ACCOUNT}:layer:tools"
CONFIG = f'account = "{ACCOUNT}"\nregion = "{REGION}"\napi = {{ auth = "none" }}\n'
SOURCE = "def handler(event, context):\n    return 1\n"
ACTIVE, UPDATED = "wait function_active_v2", "wait function_updated_v2"
THERE_IS_NONE = "ResourceNotFoundException"


CODE, OTHER = zipped({"handler.py": SOURCE}), zipped({"handler.py": SOURCE + "# two\n"})
FUNCTION = {"FunctionName": "made"}
NEW = {
    "Runtime": "python3.13",
    "Handler": "handler.handler",
    "Role": ROLE,
    "Code": {"ZipFile": CODE},
    "Timeout": 5,
    "MemorySize": 128,
}

# (operation, its parameters, and the error that the tool expects, or none)
TERRAFORM_FUNCTION = [
    ("create_function", {**NEW, "Publish": True, "PackageType": "Zip", "Architectures": ["x86_64"], "Tags": {"a": "1"},
                         "TracingConfig": {"Mode": "PassThrough"}, "EphemeralStorage": {"Size": 512},
                         "LoggingConfig": {"LogFormat": "Text"}}, ""),
    (ACTIVE, {}, ""),
    ("put_function_concurrency", {"ReservedConcurrentExecutions": 5}, ""),
    ("get_function", {}, ""),
    ("get_function", {"Qualifier": "$LATEST"}, ""),
    ("list_versions_by_function", {"MaxItems": 10000}, ""),
    ("get_function_code_signing_config", {}, ""),
    ("get_runtime_management_config", {}, ""),
    ("get_function_recursion_config", {}, ""),
    ("get_policy", {}, THERE_IS_NONE),
    ("update_function_configuration", {"Timeout": 6, "MemorySize": 256, "Environment": {"Variables": {"KEY": "v"}}, "Layers": [],
                                       "VpcConfig": {"SubnetIds": [], "SecurityGroupIds": []}}, ""),
    (UPDATED, {}, ""),
    ("update_function_code", {"ZipFile": OTHER, "Architectures": ["x86_64"]}, ""),
    (UPDATED, {}, ""),
    ("publish_version", {}, ""),
    ("delete_function_concurrency", {}, ""),
    ("tag_resource", {"FunctionName": None, "Resource": ARN, "Tags": {"b": "2"}}, ""),
    ("untag_resource", {"FunctionName": None, "Resource": ARN, "TagKeys": ["a"]}, ""),
    ("list_tags", {"FunctionName": None, "Resource": ARN}, ""),
]  # fmt: skip
TERRAFORM_ALIAS = [
    ("create_alias", {"Name": "live", "FunctionVersion": "1", "Description": "", "RoutingConfig": {}}, ""),
    ("get_alias", {"Name": "live"}, ""),
    ("update_alias", {"Name": "live", "FunctionVersion": "2", "RoutingConfig": {"AdditionalVersionWeights": {"1": 0.1}}}, ""),
    ("list_aliases", {}, ""),
    ("update_alias", {"Name": "live", "FunctionVersion": "2", "RoutingConfig": {"AdditionalVersionWeights": {}}}, ""),
]  # fmt: skip
TERRAFORM_PERMISSION = [
    ("add_permission", {"StatementId": "s3", "Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com",
                        "SourceArn": "arn:aws:s3:::bucket", "SourceAccount": ACCOUNT}, ""),
    ("add_permission", {"StatementId": "live", "Action": "lambda:InvokeFunction", "Principal": "apigateway.amazonaws.com", "Qualifier": "live"}, ""),
    ("get_policy", {}, ""),
    ("get_policy", {"Qualifier": "live"}, ""),
    ("remove_permission", {"StatementId": "s3"}, ""),
    ("remove_permission", {"StatementId": "live", "Qualifier": "live"}, ""),
    ("remove_permission", {"StatementId": "s3"}, THERE_IS_NONE),
]  # fmt: skip
TERRAFORM_MORE = [
    ("put_function_event_invoke_config", {"Qualifier": "live", "MaximumRetryAttempts": 1, "MaximumEventAgeInSeconds": 60}, ""),
    ("get_function_event_invoke_config", {"Qualifier": "live"}, ""),
    ("delete_function_event_invoke_config", {"Qualifier": "live"}, ""),
    ("create_function_url_config", {"AuthType": "NONE", "InvokeMode": "BUFFERED", "Cors": {"AllowOrigins": ["*"]}}, ""),
    ("add_permission", {"StatementId": "FunctionURLAllowPublicAccess", "Action": "lambda:InvokeFunctionUrl", "Principal": "*", "FunctionUrlAuthType": "NONE"}, ""),
    ("get_function_url_config", {}, ""),
    ("update_function_url_config", {"AuthType": "AWS_IAM"}, ""),
    ("delete_function_url_config", {}, ""),
    ("publish_layer_version", {"FunctionName": None, "LayerName": "tools", "Content": {"ZipFile": zipped({"python/tools.py": "V = 1"})},
                               "CompatibleRuntimes": ["python3.13"], "CompatibleArchitectures": ["x86_64"]}, ""),
    ("get_layer_version", {"FunctionName": None, "LayerName": "tools", "VersionNumber": 1}, ""),
    ("get_layer_version_by_arn", {"FunctionName": None, "Arn": f"{LAYER}:1"}, ""),
    ("update_function_configuration", {"Layers": [f"{LAYER}:1"]}, ""),
    (UPDATED, {}, ""),
    ("list_event_source_mappings", {}, ""),
    ("delete_layer_version", {"FunctionName": None, "LayerName": "tools", "VersionNumber": 1}, ""),
]  # fmt: skip
CLOUDFORMATION_AND_SAM = [
    ("get_function", {}, ""),
    ("publish_version", {"Description": "sam"}, ""),
    ("list_versions_by_function", {"MaxItems": 50}, ""),
    ("put_provisioned_concurrency_config", {"Qualifier": "live", "ProvisionedConcurrentExecutions": 1}, ""),
    ("get_provisioned_concurrency_config", {"Qualifier": "live"}, ""),
    ("list_provisioned_concurrency_configs", {}, ""),
    ("delete_provisioned_concurrency_config", {"Qualifier": "live"}, ""),
    ("update_function_code", {"ZipFile": CODE, "DryRun": True}, ""),
    ("get_account_settings", {"FunctionName": None}, ""),
]  # fmt: skip
SERVERLESS = [
    ("get_function_configuration", {}, ""),
    ("update_function_code", {"ZipFile": CODE}, ""),
    (UPDATED, {}, ""),
    ("update_function_configuration", {"Handler": "handler.handler", "Timeout": 6, "Environment": {"Variables": {}}}, ""),
    (UPDATED, {}, ""),
    ("invoke", {"InvocationType": "RequestResponse", "LogType": "Tail", "Payload": b"{}"}, ""),
    ("list_functions", {"FunctionName": None, "MaxItems": 50}, ""),
]  # fmt: skip
DESTROY = [
    ("delete_alias", {"Name": "live"}, ""),
    ("delete_function", {"Qualifier": "1"}, ""),
    ("delete_function", {}, ""),
    ("get_function", {}, THERE_IS_NONE),
    ("delete_function", {}, THERE_IS_NONE),
]
CALLS = [
    *TERRAFORM_FUNCTION,
    *TERRAFORM_ALIAS,
    *TERRAFORM_PERMISSION,
    *TERRAFORM_MORE,
    *CLOUDFORMATION_AND_SAM,
    *SERVERLESS,
    *DESTROY,
]


def answer(api, operation, given):
    """Make one call; return the code of its error, or nothing."""
    parameters = {name: value for name, value in {**FUNCTION, **given}.items() if value is not None}
    if operation.startswith("wait "):
        api.get_waiter(operation.removeprefix("wait ")).wait(
            **parameters, WaiterConfig={"Delay": 0.1, "MaxAttempts": 300}
        )
        return ""
    try:
        getattr(api, operation)(**parameters)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


def test_every_call_is_answered(daemon):
    api = lambda_client(daemon(CONFIG), ACCOUNT, region=REGION)
    wrong = []
    for operation, given, expected in CALLS:
        if (code := answer(api, operation, given)) != expected:
            wrong.append((operation, given, code))
    assert wrong == []


# --- event source mappings ------------------------------------------------------------------------------------------
# `{queue}`, `{stream}` and `{function}` are ARNs there, `{uuid}` and `{arn}` are of the mapping that was made last.
ENABLED, DISABLED, GONE = "wait Enabled", "wait Disabled", "wait for its end"
OF_UUID = {"UUID": "{uuid}"}
TERRAFORM_MAPPING = [
    ("create_event_source_mapping", {"FunctionName": "{function}", "EventSourceArn": "{queue}", "Enabled": True, "BatchSize": 5,
                                     "FilterCriteria": {"Filters": [{"Pattern": '{"body": {"a": [1]}}'}]},
                                     "FunctionResponseTypes": ["ReportBatchItemFailures"],
                                     "ScalingConfig": {"MaximumConcurrency": 2}, "Tags": {"a": "1"}}, ""),
    (ENABLED, OF_UUID, ""),
    ("get_event_source_mapping", OF_UUID, ""),
    ("list_tags", {"Resource": "{arn}"}, ""),
    ("create_event_source_mapping", {"FunctionName": "made", "EventSourceArn": "{queue}"}, "ResourceConflictException"),
    ("update_event_source_mapping", {**OF_UUID, "FunctionName": "{function}", "BatchSize": 20, "MaximumBatchingWindowInSeconds": 1,
                                     "FilterCriteria": {}, "FunctionResponseTypes": [], "ScalingConfig": {}}, ""),
    (ENABLED, OF_UUID, ""),
    ("tag_resource", {"Resource": "{arn}", "Tags": {"b": "2"}}, ""),
    ("untag_resource", {"Resource": "{arn}", "TagKeys": ["a"]}, ""),
    ("update_event_source_mapping", {**OF_UUID, "Enabled": False}, ""),
    (DISABLED, OF_UUID, ""),
    ("delete_event_source_mapping", OF_UUID, ""),
    (GONE, OF_UUID, ""),
    ("get_event_source_mapping", OF_UUID, THERE_IS_NONE),
    ("delete_event_source_mapping", OF_UUID, THERE_IS_NONE),
]  # fmt: skip
TERRAFORM_STREAM = [
    ("create_event_source_mapping", {"FunctionName": "made", "EventSourceArn": "{stream}", "StartingPosition": "LATEST", "Enabled": False,
                                     "BatchSize": 100, "ParallelizationFactor": 2, "BisectBatchOnFunctionError": True,
                                     "MaximumRecordAgeInSeconds": -1, "MaximumRetryAttempts": 3, "TumblingWindowInSeconds": 0,
                                     "DestinationConfig": {"OnFailure": {"Destination": "{queue}"}}}, ""),
    (DISABLED, OF_UUID, ""),
    ("update_event_source_mapping", {**OF_UUID, "DestinationConfig": {"OnFailure": {}}, "ParallelizationFactor": 1, "Enabled": True}, ""),
    (ENABLED, OF_UUID, ""),
    ("delete_event_source_mapping", OF_UUID, ""),
    (GONE, OF_UUID, ""),
]  # fmt: skip
CLOUDFORMATION_MAPPING = [
    ("create_event_source_mapping", {"FunctionName": "{function}:live", "EventSourceArn": "{queue}", "BatchSize": 10, "Tags": {"of": "cdk"}}, ""),
    (ENABLED, OF_UUID, ""),
    ("list_tags", {"Resource": "{arn}"}, ""),
    ("list_event_source_mappings", {"FunctionName": "made", "MaxItems": 100}, ""),
    ("list_event_source_mappings", {"FunctionName": "{function}:live"}, ""),
    ("list_event_source_mappings", {"EventSourceArn": "{queue}"}, ""),
    ("update_event_source_mapping", {**OF_UUID, "FunctionName": "{function}:live", "BatchSize": 1}, ""),
    (ENABLED, OF_UUID, ""),
    ("delete_event_source_mapping", OF_UUID, ""),
    (GONE, OF_UUID, ""),
    ("list_event_source_mappings", {"FunctionName": "made"}, ""),
]  # fmt: skip


def filled(value, names):
    """Return parameters with what is known by now in the place of names."""
    if isinstance(value, dict):
        return {key: filled(each, names) for key, each in value.items()}
    if isinstance(value, str):
        for name, found in names.items():
            value = value.replace(name, found)
    return value


def answered_of_mappings(api, operation, given, names):
    """Make one call of a mapping's, or ask for its state until it is so, as tools do; return its error, or nothing."""
    given = filled(given, names)
    if not operation.startswith("wait "):
        try:
            made = getattr(api, operation)(**given)
        except ClientError as error:
            return str(error.response["Error"]["Code"])
        if operation.startswith("create_"):
            names |= {"{uuid}": made["UUID"], "{arn}": made["EventSourceMappingArn"]}
        return ""

    def state():
        try:
            return api.get_event_source_mapping(**given)["State"]
        except api.exceptions.ResourceNotFoundException:
            return "for its end"

    wait_for(lambda: state() == operation.removeprefix("wait "), description=operation)
    return ""


def test_every_call_of_mappings_is_answered(daemon, ministack):
    config = f'account = "{ministack.account}"\nregion = "{ministack.region}"\napi = {{ auth = "none" }}\n'
    bridge = daemon(config + ministack.connection())
    api = lambda_client(bridge, ministack.account, region=ministack.region)
    function = api.create_function(**FUNCTION, **NEW, Publish=True)["FunctionArn"].removesuffix(":1")
    answer(api, ACTIVE, {})
    api.create_alias(**FUNCTION, Name="live", FunctionVersion="1")
    queue, stream = ministack.name(), ministack.name()
    ministack.client("sqs").create_queue(QueueName=queue)
    kinesis = ministack.client("kinesis")
    kinesis.create_stream(StreamName=stream, ShardCount=1)
    kinesis.get_waiter("stream_exists").wait(StreamName=stream, WaiterConfig={"Delay": 1})
    names = {
        "{function}": function,
        "{queue}": ministack.arn("sqs", queue),
        "{stream}": ministack.arn("kinesis", f"stream/{stream}"),
    }
    wrong = []
    for operation, given, expected in (*TERRAFORM_MAPPING, *TERRAFORM_STREAM, *CLOUDFORMATION_MAPPING):
        if (code := answered_of_mappings(api, operation, given, names)) != expected:
            wrong.append((operation, given, code))
    assert wrong == []
    assert api.list_event_source_mappings()["EventSourceMappings"] == []
