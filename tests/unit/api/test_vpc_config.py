"""VpcConfig at Lambda's API (semantics 5.10): checked, kept, shown with its VpcId; of a declared function from the file."""

import pytest

from bridge.core.network import NONE, VpcConfig, vpc_id
from bridge.registry.catalog import FunctionCatalog, FunctionSpec
from tests.harness import write_function
from tests.unit.api.making import FUNCTIONS, Made, MemoryFunctions, request

CONFIGURATION = f"{FUNCTIONS}/made/configuration"
SUBNET, GROUP = "subnet-0a1b2c3d", "sg-0123456789abcdef0"
GIVEN = {"SubnetIds": [SUBNET], "SecurityGroupIds": [GROUP]}
SHOWN = {**GIVEN, "Ipv6AllowedForDualStack": False, "VpcId": vpc_id("us-east-1.000000000000")}
INVALID = "InvalidParameterValueException"


@pytest.fixture
async def api(tmp_path):
    made = Made(tmp_path, MemoryFunctions())
    await made.made.open()
    yield made
    await made.world.close()


async def test_kept_shown_and_taken_away(api):
    created = await api.create(VpcConfig=GIVEN)
    assert created["VpcConfig"] == SHOWN

    await api.json("PUT", CONFIGURATION, {"Timeout": 9})
    await api.settled("made")
    assert (await api.json("GET", CONFIGURATION))["VpcConfig"] == SHOWN
    assert api.catalog.get("made").latest.vpc == VpcConfig(subnet_ids=(SUBNET,), security_group_ids=(GROUP,))

    await api.json("PUT", CONFIGURATION, {"VpcConfig": {"SubnetIds": [], "SecurityGroupIds": []}})
    await api.settled("made")
    assert "VpcConfig" not in await api.json("GET", CONFIGURATION)
    assert api.catalog.get("made").latest.vpc is None


async def test_no_interface_is_named(api):
    await api.create(VpcConfig=GIVEN)

    assert b"eni-" not in (await api.ask("GET", f"{FUNCTIONS}/made")).body


@pytest.mark.parametrize(
    ("subnets", "groups", "code", "text"),
    [
        ([SUBNET], [], INVALID, "SubnetIds and SecurityIds must coexist or be both empty list."),
        ([], [GROUP], INVALID, "SubnetIds and SecurityIds must coexist or be both empty list."),
        (
            ["subnet-x"], [GROUP], INVALID,
            "Error occurred while DescribeSubnets. EC2 Error Code: InvalidSubnetID.NotFound. EC2 Error Message: The subnet ID 'subnet-x' does not exist",
        ),
        (
            [SUBNET], ["x"], INVALID,
            "Error occurred while DescribeSecurityGroups. EC2 Error Code: InvalidGroup.NotFound. EC2 Error Message: The security group 'x' does not exist",
        ),
        ([SUBNET] * 17, [GROUP], "ValidationException", "at 'vpcConfig.subnetIds' failed to satisfy constraint: Member must have length less than or equal to 16"),
        ([SUBNET], [GROUP] * 6, "ValidationException", "at 'vpcConfig.securityGroupIds' failed to satisfy constraint: Member must have length less than or equal to 5"),
        ([7], [GROUP], "SerializationException", "VpcConfig.SubnetIds holds Strings"),
    ],
    ids=["no-groups", "no-subnets", "subnet", "group", "subnets", "groups", "type"],
)  # fmt: skip
async def test_refused(api, subnets, groups, code, text):
    body = request(VpcConfig={"SubnetIds": subnets, "SecurityGroupIds": groups})

    assert text in await api.refused("POST", FUNCTIONS, body, 400, code)


async def test_sixteen_subnets_and_five_groups_are_taken(api):
    subnets = [f"subnet-{number:08x}" for number in range(16)]
    groups = [f"sg-{number:08x}" for number in range(5)]

    created = await api.create(VpcConfig={"SubnetIds": subnets, "SecurityGroupIds": groups})

    assert created["VpcConfig"]["SubnetIds"] == subnets


async def test_of_the_file_is_shown_and_kept_in_its_versions(api, tmp_path):
    code = write_function(tmp_path / "code", "def handler(event, context): pass\n")
    vpc = VpcConfig(subnet_ids=(SUBNET,), security_group_ids=(GROUP,))
    specs = [
        FunctionSpec(name="inside", code=code, handler="app.handler", vpc=vpc),
        FunctionSpec(name="alone", code=code, handler="app.handler", network=NONE),
    ]
    api.catalog.replace_all(FunctionCatalog.from_specs(specs))

    assert (await api.json("GET", f"{FUNCTIONS}/inside/configuration"))["VpcConfig"] == SHOWN
    for name in ("inside", "alone"):
        await api.json("POST", f"{FUNCTIONS}/{name}/versions", {}, 201)
    assert (await api.json("GET", f"{FUNCTIONS}/inside/configuration?Qualifier=1"))["VpcConfig"] == SHOWN
    assert "VpcConfig" not in await api.json("GET", f"{FUNCTIONS}/alone/configuration?Qualifier=1")
    assert api.catalog.get("inside").versions["1"].vpc == vpc
    assert api.catalog.get("alone").versions["1"].network == NONE
