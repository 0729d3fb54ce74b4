"""The calls that common infrastructure tools make of Lambda, by boto3 at a daemon, in the order in which they make them."""

import pytest
from botocore.exceptions import ClientError

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
