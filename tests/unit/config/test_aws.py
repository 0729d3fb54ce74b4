"""`[connections.X]` of AWS: what it may hold, how it is found for an ARN, and what is wrong with it."""

import pytest

from bridge.config.connections import aws_connection
from bridge.config.functions import function_specs
from bridge.config.load import load
from bridge.config.mappings import mapping_values
from bridge.config.mistakes import ConfigErrors
from bridge.config.show import show
from bridge.core.arn import parse_arn

from .conftest import GOOD

AWS = '[connections.a]\ntype = "aws"\nregion = "eu-central-1"\n'
HERE = "bridge.toml:"


def lines(found):
    return [line.removeprefix(HERE) for line in found]


class TestConnection:
    def test_all_of_it(self, load_text):
        text = AWS + (
            'endpoint_url = "http://127.0.0.1:4566/"\nendpoint_urls = { sqs = "https://sqs.example/p" }\n'
            'role_arn = "arn:aws:iam::123456789012:role/path/r"\nexternal_id = "x"\naccess_key_id = "AKID"\n'
            'secret_access_key = { env = "S" }\nsession_token = { env = "T" }\n'
        )

        settings = load_text(text + GOOD, {"S": "very-secret", "T": "token"}).settings
        made = aws_connection(settings, name="a")

        assert ("http://127.0.0.1:4566", "https://sqs.example/p") == (made.endpoint("kinesis"), made.endpoint("sqs"))
        assert ("a", "eu-central-1", "x", "AKID") == (made.name, made.region, made.external_id, made.access_key_id)
        assert ("very-secret", "token") == (made.secret_access_key, made.session_token)
        assert "very-secret" not in show(settings)
        assert 'secret_access_key = {env = "S"}' in show(settings)

    @pytest.mark.parametrize("written", ['{ env = "ID" }', '"${ID}"'])
    def test_the_key_s_id_may_be_written_as_its_secret_is(self, load_text, written):
        text = AWS + f'access_key_id = {written}\nsecret_access_key = {{ env = "S" }}\n'

        settings = load_text(text + GOOD, {"S": "s", "ID": "AKID"}).settings

        assert aws_connection(settings, name="a").access_key_id == "AKID"
        assert "AKID" not in show(settings)

    @pytest.mark.parametrize(
        ("added", "wrong"),
        [
            ("x = 1", "4: connections.a.x: unknown key"),
            ("endpoint_ulr = 'http://h'", "4: connections.a.endpoint_ulr: unknown key; did you mean endpoint_url?"),
            ("endpoint_url = 'h:1'", "4: connections.a.endpoint_url: must be http://host:port or https://host, with a path where the service has one"),
            ("endpoint_url = 'http://u:p@h'", "4: connections.a.endpoint_url: must be http://host:port or https://host, with a path where the service has one"),
            ("endpoint_url = 'http://h:4566'", "4: connections.a.endpoint_url: events would pass in plain text to another machine: write https, or insecure = true"),
            ("endpoint_urls = { sqs = 'http://h' }", "4: connections.a.endpoint_urls.sqs: events would pass in plain text to another machine: write https, or insecure = true"),
            ("endpoint_urls = { 'S q' = 'https://h' }", '4: connections.a.endpoint_urls."S q": a service is named as boto names it, such as sqs or kinesis'),
            ("role_arn = 'arn:aws:iam::1:role/r'", "4: connections.a.role_arn: not a valid value: Role that is assumed through STS; left out: none"),
            ("external_id = 'x'", "4: connections.a.external_id: only with role_arn"),
            ("access_key_id = 'A'", "1: connections.a.secret_access_key: missing: access_key_id is there"),
            ("access_key_id = 'A B'", "4: connections.a.access_key_id: must be 1..128 letters, digits and _"),
            ("secret_access_key = 'abc'", '4: connections.a.secret_access_key: a secret is not written into the file; write { env = "NAME" } or { file = "path" }'),
            ("profile = 'p'\naccess_key_id = 'A'\nsecret_access_key = { env = 'S' }", "4: connections.a.profile: not together with access_key_id: who is it?"),
            ("session_token = { env = 'S' }", "4: connections.a.session_token: only together with access_key_id and secret_access_key"),
        ],
    )  # fmt: skip
    def test_mistakes(self, mistakes, added, wrong):
        assert wrong in lines(mistakes(AWS + added + "\n" + GOOD, {"S": "s"}))

    def test_its_region_is_needed_and_its_type_is_one_of_two(self, mistakes):
        assert ["1: connections.a.region: missing: Region, such as eu-central-1"] == lines(
            mistakes('[connections.a]\ntype = "aws"\n' + GOOD)
        )
        assert ['2: connections.a.type: must be "kafka" or "aws"; did you mean aws?'] == lines(
            mistakes(AWS.replace('"aws"', '"awss"') + GOOD)
        )

    def test_http_to_another_machine_may_be_meant(self, load_text):
        load_text(AWS + 'endpoint_url = "http://ministack:4566"\ninsecure = true\n' + GOOD)


class TestOfAnArn:
    QUEUE = "arn:aws:sqs:eu-central-1:123456789012:q"

    def test_the_only_one_of_its_region(self, load_text):
        settings = load_text(AWS + AWS.replace(".a]", ".b]").replace("eu-central-1", "us-east-1") + GOOD).settings

        assert "a" == aws_connection(settings, arn=parse_arn(self.QUEUE)).name

    def test_else_botos_chain_with_its_region(self, load_text):
        settings = load_text(AWS + AWS.replace(".a]", ".b]") + GOOD).settings

        two = aws_connection(settings, arn=parse_arn(self.QUEUE))
        none = aws_connection(settings, arn=parse_arn(self.QUEUE.replace("central", "west")))

        assert ("", "eu-central-1", "") == (two.name, two.region, two.access_key_id)
        assert ("", "eu-west-1") == (none.name, none.region)

    def test_else_the_one_that_is_written(self, load_text):
        settings = load_text(AWS + AWS.replace(".a]", ".b]") + GOOD).settings

        assert "b" == aws_connection(settings, arn=parse_arn(self.QUEUE), name="b").name

    def test_of_a_mapping(self, mistakes):
        text = GOOD + AWS + '[mappings.m]\nsource = "local://s?as=kafka"\nfunction = "hello"\nconnection = "a"\n'

        assert [
            "16: mappings.m.connection: only for a source or on_failure that is an ARN; a URL has it inside"
        ] == lines(mistakes(text))


def test_a_kafka_source_wants_a_cluster(mistakes):
    text = GOOD + AWS + '[mappings.m]\nsource = "kafka://a/t"\nfunction = "hello"\non_failure = "kafka://a/u"\n'

    assert [
        "14: mappings.m.source: connections.a is AWS, no cluster",
        "16: mappings.m.on_failure: connections.a is AWS, no cluster",
    ] == lines(mistakes(text))


def test_a_mapping_beside_aws_is_as_before(load_text):
    text = GOOD + AWS + '[mappings.m]\nsource = "local://s?as=kafka"\nfunction = "hello"\n'

    assert [""] == [mapping.connection for mapping in mapping_values(load_text(text).settings)]


FUNCTION = """[functions.billing]
arn = "arn:aws:lambda:eu-central-1:123456789012:function:billing:live"
"""


class TestRemoteFunction:
    def test_all_of_it(self, load_text):
        text = AWS + FUNCTION + 'connection = "a"\ntimeout_s = 60\nhandover = true\nreserved_concurrency = 5\n'

        (spec,) = function_specs(load_text(text + "event_invoke = { maximum_retry_attempts = 0 }\n").settings)

        assert ("billing", "live", True) == (spec.remote.name, spec.remote.qualifier, spec.remote.handover)
        assert ("a", 60, 5) == (spec.remote.connection.name, spec.timeout_s, spec.reserved_concurrency)
        assert 0 == spec.event_invoke.maximum_retry_attempts

    def test_its_connection_is_the_only_one_of_its_region_else_botos_chain(self, load_text):
        (by_region,) = function_specs(load_text(AWS + FUNCTION).settings)
        (by_chain,) = function_specs(load_text(FUNCTION).settings)

        assert ("a", "") == (by_region.remote.connection.name, by_chain.remote.connection.name)
        assert (900, "eu-central-1") == (by_chain.timeout_s, by_chain.remote.connection.region)

    @pytest.mark.parametrize(
        ("text", "wrong"),
        [
            (FUNCTION + 'handler = "a.b"', "3: functions.billing.handler: not together with arn: that function runs elsewhere, with what is configured there"),
            (FUNCTION + "handovr = true", "3: functions.billing.handovr: unknown key; did you mean handover?"),
            (FUNCTION + "timeout_s = 901", "3: functions.billing.timeout_s: must be at most 900, not 901"),
            (FUNCTION.replace("lambda", "sqs"), "2: functions.billing.arn: must be a function's ARN: arn:aws:lambda:REGION:ACCOUNT:function:NAME, or with :VERSION or :ALIAS behind"),
            (FUNCTION.replace("arn:aws", "aws"), "2: functions.billing.arn: must be an ARN: arn:aws:SERVICE:REGION:ACCOUNT:RESOURCE"),
            (FUNCTION + 'connection = "b"\n' + AWS, '3: functions.billing.connection: no connection b here; write [connections.X] with type = "aws"'),
            (FUNCTION + 'connection = "a"\n' + AWS.replace("central", "west"), "3: functions.billing.connection: connections.a is in eu-west-1, the ARN in eu-central-1"),
            (FUNCTION + 'connection = "a"\n[connections.a]\ntype = "kafka"\nbootstrap_servers = ["k:1"]', "3: functions.billing.connection: connections.a is a cluster of Kafka, not AWS"),
        ],
    )  # fmt: skip
    def test_mistakes(self, mistakes, text, wrong):
        assert [wrong] == lines(mistakes(text))

    def test_a_local_function_still_wants_code_and_handler(self, mistakes):
        assert [
            "1: functions.f.code: missing: Folder that becomes the task root",
            "1: functions.f.handler: missing: module.function; folder/module.function in a subfolder",
        ] == lines(mistakes("[functions.f]\ntimeout_s = 3\n"))

    def test_where_a_file_is_tried_its_connection_is_neither_looked_at_nor_needed(self, folder):
        text = FUNCTION + 'connection = "a"\n' + AWS + 'access_key_id = "A"\nsecret_access_key = { env = "S" }\n'
        (folder / "bridge.toml").write_text(text)

        tried = load(None, {}, local=True).settings
        allowed = load(None, {"S": "secret"}, local=True, remote=True).settings

        assert ({}, "") == (tried.connections, tried.functions["billing"].connection)
        assert "secret" == function_specs(allowed)[0].remote.connection.secret_access_key
        with pytest.raises(ConfigErrors, match="S is not set in the environment"):
            load(None, {}, local=True, remote=True)
