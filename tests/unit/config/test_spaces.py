"""Functions that a file names by ARN: here, in another name space, elsewhere."""

import pytest

from bridge.config.mappings import mapping_values

FILE = """
region = "eu-west-1"
account = "123456789012"
[functions.f]
code = "code"
handler = "app.handler"
[functions.far]
arn = "arn:aws:lambda:us-east-1:111122223333:function:there:live"
[sources.s]
type = "webhook"
path = "/s"
verify = "none"
function = "ARN"
[mappings.m]
source = "local://t?as=kafka"
function = "ARN"
"""


@pytest.mark.parametrize(
    ("arn", "name"),
    [
        ("arn:aws:lambda:eu-west-1:123456789012:function:f", "f"),
        ("arn:aws:lambda:eu-west-1:123456789012:function:f:live", "f:live"),
        ("arn:aws:lambda:us-east-1:123456789012:function:f", "f@us-east-1.123456789012"),
        ("arn:aws:lambda:eu-west-1:222222222222:function:made:$LATEST", "made@eu-west-1.222222222222:$LATEST"),
        ("arn:aws:lambda:us-east-1:111122223333:function:there:live", "far"),
        ("made@eu-west-1.222222222222:3", "made@eu-west-1.222222222222:3"),
    ],
)
def test_it_is_called_as_inside_the_daemon(load_text, arn, name):
    settings = load_text(FILE.replace("ARN", arn)).settings
    assert settings.sources["s"].function == name
    assert [mapping.function for mapping in mapping_values(settings)] == [name]


@pytest.mark.parametrize(
    "arn", ["arn:aws:sqs:eu-west-1:123456789012:f", "arn:aws:lambda:eu-west-1:1:function:f", "f@eu-west-1", "f@x.1"]
)
def test_what_is_no_functions_name(mistakes, arn):
    found = mistakes(FILE.replace("ARN", arn))
    assert len(found) == 2
    assert all("must be name or name:qualifier, or a function's ARN" in line for line in found)
