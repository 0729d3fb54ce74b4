"""A connection as aiokafka's arguments: protocols, certificates, tokens, what is refused, and why it is not let in."""

import asyncio
import logging
import ssl
import sys
import types

import pytest
from aiokafka.errors import KafkaConnectionError, KafkaError, UnknownTopicOrPartitionError

from bridge.core.connection import KafkaConnection, KafkaSasl, KafkaTls, SaslMechanism
from bridge.core.errors import ConfigError, SourceError
from bridge.core.mapping import StartingPosition
from bridge.core.stream import StreamRange
from bridge.sources.pull.kafka import KafkaEventSource
from bridge.sources.pull.kafka_client import (
    client_arguments,
    cluster_name,
    reason,
)
from bridge.testing.clock import ManualClock
from bridge.util.library_log import LibraryLog, overheard
from tests.brokers.certificates import make_certificates


def connection(**more):
    return KafkaConnection(**{"name": "main", "bootstrap_servers": ("a:1", "b:2")} | more)


def test_plain_text():
    arguments = client_arguments(connection(client_id="me"))

    assert (arguments["bootstrap_servers"], arguments["client_id"]) == (["a:1", "b:2"], "me")
    assert arguments["security_protocol"] == "PLAINTEXT"
    assert "ssl_context" not in arguments


def test_tls_checks_the_broker_by_the_given_authority_and_shows_our_certificate(tmp_path):
    files = make_certificates(tmp_path)
    tls = KafkaTls(ca=str(files.ca), cert=str(files.client_certificate), key=str(files.client_key))

    arguments = client_arguments(connection(tls=tls))

    assert arguments["security_protocol"] == "SSL"
    context = arguments["ssl_context"]
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert [dict(pair[0] for pair in one["subject"])["commonName"] for one in context.get_ca_certs()] == [
        "bridge-test-ca"
    ]


@pytest.mark.parametrize("field", ["ca", "cert"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, field):
    missing = str(tmp_path / "none.pem")

    with pytest.raises(ConfigError, match=rf"tls\.{field} .*none\.pem"):
        client_arguments(connection(tls=KafkaTls(**{field: missing})))


async def test_a_file_that_goes_while_the_daemon_runs_is_a_failure_that_may_pass(tmp_path):
    """A mistake in the configuration would end the mapping for good: certificates are replaced file by file."""
    files = make_certificates(tmp_path)
    source = KafkaEventSource(
        connection(tls=KafkaTls(ca=str(files.ca))), topic="orders", group="g", clock=ManualClock()
    )
    files.ca.unlink()

    asked = [
        source.consumer().open(None), source.reader(StreamRange()).open(None), source.standing(), source.others(),
        source.reset(StartingPosition.LATEST),
    ]  # fmt: skip
    for each in asked:
        with pytest.raises(SourceError, match=r"^kafka main: .*tls\.ca "):
            await each


@pytest.mark.parametrize("mechanism", [SaslMechanism.PLAIN, SaslMechanism.SCRAM_SHA_256, SaslMechanism.SCRAM_SHA_512])
def test_users_and_passwords(mechanism):
    sasl = KafkaSasl(mechanism=mechanism, username="u", password="p")

    plain, secured = (client_arguments(connection(sasl=sasl, tls=tls)) for tls in (None, KafkaTls()))

    assert (plain["security_protocol"], secured["security_protocol"]) == ("SASL_PLAINTEXT", "SASL_SSL")
    assert plain["sasl_mechanism"] == mechanism.value
    assert (plain["sasl_plain_username"], plain["sasl_plain_password"]) == ("u", "p")


async def asynchronous():
    return "later"


@pytest.mark.parametrize(("function", "expected"), [(lambda: "now", "now"), (asynchronous, "later")])
async def test_a_token_comes_from_a_function(monkeypatch, function, expected):
    module = types.ModuleType("tokens_of_a_test")
    module.make = function
    monkeypatch.setitem(sys.modules, "tokens_of_a_test", module)
    sasl = KafkaSasl(mechanism=SaslMechanism.OAUTHBEARER, token="tokens_of_a_test:make")

    arguments = client_arguments(connection(sasl=sasl))

    assert arguments["sasl_mechanism"] == "OAUTHBEARER"
    assert await arguments["sasl_oauth_token_provider"].token() == expected


def raises():
    raise PermissionError("the vault is\nsealed")


async def hangs():
    await asyncio.sleep(3600)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda: None, "returned no text but NoneType"),
        (lambda: "", "returned no text but str"),
        (raises, "PermissionError: the vault is sealed"),
        (hangs, "returned nothing within 0.05 s"),
    ],
)
async def test_why_there_is_no_token_is_an_error_that_the_library_expects(monkeypatch, function, why):
    module = types.ModuleType("tokens_of_a_test")
    module.make = function
    monkeypatch.setitem(sys.modules, "tokens_of_a_test", module)
    monkeypatch.setattr("bridge.sources.pull.kafka_tokens.TOKEN_MAX_S", 0.05)
    sasl = KafkaSasl(mechanism=SaslMechanism.OAUTHBEARER, token="tokens_of_a_test:make")

    with pytest.raises(KafkaError) as caught:
        await client_arguments(connection(sasl=sasl))["sasl_oauth_token_provider"].token()

    assert reason(caught.value).endswith(f"sasl.token tokens_of_a_test:make: {why}")


@pytest.mark.parametrize("name", ["no_such_module_anywhere:make", "sys:no_such_function", "sys:path", "sys", ":x", ""])
def test_a_token_function_that_is_not_there_is_named(name):
    with pytest.raises(ConfigError, match=r"sasl\.token"):
        client_arguments(connection(sasl=KafkaSasl(mechanism=SaslMechanism.OAUTHBEARER, token=name)))


def test_iam_without_its_extra_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "aws_msk_iam_sasl_signer", None)

    with pytest.raises(ConfigError, match=r"pip install 'bridge\[msk\]'"):
        client_arguments(connection(sasl=KafkaSasl(mechanism=SaslMechanism.AWS_MSK_IAM, region="eu-west-1")))


async def test_iam_signs_a_token_for_the_region_and_always_uses_tls(monkeypatch):
    module = types.ModuleType("aws_msk_iam_sasl_signer")
    module.MSKAuthTokenProvider = types.SimpleNamespace(generate_auth_token=lambda region: (f"token of {region}", 1))
    monkeypatch.setitem(sys.modules, "aws_msk_iam_sasl_signer", module)
    sasl = KafkaSasl(mechanism=SaslMechanism.AWS_MSK_IAM, region="eu-west-1")

    arguments = client_arguments(connection(sasl=sasl))

    assert (arguments["security_protocol"], arguments["sasl_mechanism"]) == ("SASL_SSL", "OAUTHBEARER")
    assert await arguments["sasl_oauth_token_provider"].token() == "token of eu-west-1"


def test_a_cluster_is_called_by_its_name_or_its_addresses():
    assert cluster_name(connection()) == "main"
    assert cluster_name(connection(name="")) == "a:1,b:2"


def test_why_an_address_could_not_be_used_is_overheard_in_the_task_that_tries_it():
    handler = LibraryLog()

    def warn(text, *arguments):
        handler.emit(logging.LogRecord("aiokafka", logging.ERROR, "", 0, text, arguments, None))

    with overheard() as said:
        warn('Unable connect to "%s:%s": %s', "kafka-1", 9092, "[Error 58] no\nsuch user")
        warn('Unable connect to "%s:%s": %s', "kafka-2", 9092, TimeoutError())
        warn("Sending username and password in the clear")
    warn('Unable connect to "%s:%s": %s', "kafka-3", 9092, "not overheard")

    both = "kafka-1:9092: [Error 58] no such user; kafka-2:9092: TimeoutError"
    assert reason(KafkaConnectionError("Unable to bootstrap from [...]"), said) == both
    assert "UnknownTopic" in reason(UnknownTopicOrPartitionError(), said)
    assert reason(KafkaConnectionError("one\nline"), []) == "KafkaConnectionError: one line"


@pytest.mark.parametrize(
    ("servers", "sasl"),
    [
        (("b-1.orders.a1.c2.kafka.eu-west-1.amazonaws.com:9098",), None),
        (("10.0.0.1:9098",), KafkaSasl(mechanism=SaslMechanism.AWS_MSK_IAM, region="eu-west-1")),
    ],
)
async def test_a_cluster_on_aws_is_somebodys_and_is_not_even_asked(monkeypatch, servers, sasl):
    monkeypatch.setitem(
        sys.modules, "aws_msk_iam_sasl_signer", types.SimpleNamespace(MSKAuthTokenProvider=types.SimpleNamespace())
    )
    given = connection(bootstrap_servers=servers, sasl=sasl)
    source = KafkaEventSource(given, topic="orders", group="g", clock=ManualClock())

    assert await source.others() == [f"AWS: {servers[0]}"]
    assert not connection(bootstrap_servers=("kafka.amazonaws.com.example.org:9092",)).is_on_aws
