"""Secrets are references; a canary in every secret field is found in no output of any kind."""

import copy
import json
import pickle

import pytest

from bridge.config.connections import aws_connection, connection_values
from bridge.config.load import load
from bridge.config.mistakes import ConfigErrors
from bridge.config.show import schema, show
from bridge.config.values import MASK, Secret
from bridge.daemon.masking import register_secrets
from bridge.util import logs

CANARY = "canary-5f3a9c"
TEXT = """\
[functions.f]
code = "code"
handler = "app.handler"
[functions.f.environment]
REFERENCE = { env = "CANARY" }
FROM_FILE = { file = "secret.txt" }
EXPANDED = "${CANARY}"
INSIDE = "postgres://user:${CANARY}@host/db"
DB_PASSWORD = "canary-5f3a9c-literal"
STAGE = "prod"
[sources.github]
type = "webhook"
path = "/github"
function = "f"
verify = { scheme = "github", secrets = [{ env = "CANARY" }, { file = "secret.txt" }] }
[sources.basic]
type = "webhook"
path = "/basic"
function = "f"
verify = { scheme = "basic", secrets = [{ env = "LOGIN" }] }
[connections.main]
type = "kafka"
bootstrap_servers = ["kafka-1:9092"]
tls = true
sasl = { mechanism = "PLAIN", username = "bridge", password = { env = "CANARY" } }
[connections.aws]
type = "aws"
region = "eu-central-1"
access_key_id = "AKID"
secret_access_key = { env = "AWS_SECRET" }
session_token = { env = "CANARY" }
"""
ENVIRON = {"CANARY": CANARY, "LOGIN": f"user:{CANARY}", "AWS_SECRET": CANARY + "-aws"}


@pytest.fixture
def loaded(folder, load_text):
    (folder / "secret.txt").write_text(CANARY + "-file\n")
    (folder / "secret.txt").chmod(0o644)
    return load_text(TEXT, ENVIRON)


class TestCanary:
    def test_is_there_when_it_is_asked_for(self, loaded):
        environment = loaded.settings.functions["f"].environment

        assert environment["REFERENCE"].reveal() == CANARY
        assert environment["INSIDE"].reveal() == f"postgres://user:{CANARY}@host/db"
        assert loaded.settings.sources["github"].scheme.reveal() == (CANARY, CANARY + "-file")

    def test_a_connections_password_is_revealed_to_the_client_and_masked_in_the_log(self, loaded):
        connection = connection_values(loaded.settings)["main"]
        logs.forget_secrets()
        try:
            register_secrets(loaded.settings)

            assert connection.sasl.password == CANARY
            assert CANARY not in repr(connection)
            assert CANARY not in logs.mask(f"cannot log in with {CANARY}")
        finally:
            logs.forget_secrets()

    def test_the_keys_of_aws_are_revealed_to_the_client_and_masked_in_the_log(self, loaded):
        connection = aws_connection(loaded.settings, name="aws")
        logs.forget_secrets()
        try:
            register_secrets(loaded.settings)

            assert (connection.secret_access_key, connection.session_token) == (CANARY + "-aws", CANARY)
            assert CANARY not in repr(connection)
            assert CANARY not in logs.mask(f"signed with {CANARY}-aws and {CANARY}")
        finally:
            logs.forget_secrets()

    def test_is_in_no_output(self, loaded):
        settings = loaded.settings
        outputs = {
            "show": show(settings),
            "schema": json.dumps(schema()),
            "repr": repr(settings),
            "str": str(settings),
            "dump": repr(settings.model_dump()),
            "json": settings.model_dump_json(),
            "warnings": repr(loaded.warnings),
            "loaded": repr(loaded),
            "copy": repr(copy.deepcopy(settings)),
        }
        assert [name for name, text in outputs.items() if CANARY in text] == []

    @pytest.mark.parametrize(
        "spoiled",
        [
            TEXT.replace('"code"', "5"),
            TEXT.replace('{ env = "CANARY" }, {', f'"{CANARY}", {{'),
            TEXT.replace('verify = { scheme = "github"', f'verify = {{ scheme = "{CANARY}"'),
            TEXT.replace('verify = { scheme = "basic", secrets = [{ env = "LOGIN" }] }', f'verify = "{CANARY}"'),
            TEXT.replace('{ env = "LOGIN" }', '{ env = "CANARY" }'),
            TEXT.replace('scheme = "basic"', 'scheme = "standard-webhooks"'),
            TEXT.replace('scheme = "github"', 'scheme = "github", header = "${CANARY}"'),
            TEXT.replace('STAGE = "prod"', f'A = "{CANARY}"'),
            TEXT.replace('STAGE = "prod"', f'BIG = "${{CANARY}}{"x" * 4096}"'),
            TEXT.replace('"/github"', '"${CANARY}"'),
            TEXT.replace('"webhook"', '"${CANARY}"'),
            'region = "${CANARY}"\naccount = "${CANARY}"\nlog = { level = "${CANARY}" }\n' + TEXT,
            'listen = { public = "${CANARY}", tls = "${CANARY}", hosts = ["${CANARY}/"] }\n' + TEXT,
        ],
    )
    def test_is_in_no_mistake(self, folder, mistakes, spoiled):
        (folder / "secret.txt").write_text(CANARY)

        assert CANARY not in "\n".join(mistakes(spoiled, ENVIRON))

    def test_is_not_dragged_along_by_the_error(self, folder):
        """What pydantic raised holds the values; it must not hang on our error, where a log would print it."""
        (folder / "bridge.toml").write_text(TEXT.replace('"code"', "5"))

        with pytest.raises(ConfigErrors) as caught:
            load(None, ENVIRON)

        assert (caught.value.__cause__, caught.value.__context__) == (None, None)
        assert CANARY not in repr(caught.value)


class TestShow:
    def test_secrets_show_where_they_come_from(self, loaded):
        text = show(loaded.settings)

        assert '{env = "CANARY"}' in text
        assert '{file = "secret.txt"}' in text
        assert 'INSIDE = "postgres://user:${CANARY}@host/db"' in text
        assert f'DB_PASSWORD = "{MASK}"' in text
        assert 'STAGE = "prod"' in text

    def test_what_is_shown_can_be_loaded(self, folder, loaded):
        (folder / "shown.toml").write_text(show(loaded.settings).replace(MASK, CANARY + "-literal"))

        assert load(folder / "shown.toml", ENVIRON).settings == loaded.settings


class TestFiles:
    def test_loosely_kept_ones_are_warned_about_with_their_lines(self, loaded):
        assert loaded.warnings == (
            "bridge.toml:6: functions.f.environment.FROM_FILE: the file can be read by others (mode 0644); chmod 600 it",
            'bridge.toml:9: functions.f.environment.DB_PASSWORD: a secret in plain text? write { env = "NAME" } or { file = "path" }',
            "bridge.toml:15: sources.github.verify.secrets[1]: the file can be read by others (mode 0644); chmod 600 it",
        )

    def test_well_kept_ones_are_not(self, folder, load_text):
        (folder / "secret.txt").write_text("x")
        (folder / "secret.txt").chmod(0o600)

        assert len(load_text(TEXT, ENVIRON).warnings) == 1

    @pytest.mark.parametrize(
        ("content", "value"),
        [(b"a\n", "a"), (b"a\r\n", "a"), (b"a", "a"), (b" a \n\n", " a \n"), (b"l1\nl2\n", "l1\nl2")],
    )
    def test_one_last_line_end_is_no_part_of_the_secret(self, folder, load_text, content, value):
        (folder / "secret.txt").write_bytes(content)

        environment = load_text(TEXT, ENVIRON).settings.functions["f"].environment

        assert environment["FROM_FILE"].reveal() == value

    @pytest.mark.parametrize(
        ("content", "why"),
        [(b"", "the file is empty"), (b"\n", "the file is empty"), (b"\xff", "not UTF-8"), (b"x" * 65537, "larger than 65,536 bytes")],
    )  # fmt: skip
    def test_unusable(self, folder, mistakes, content, why):
        (folder / "secret.txt").write_bytes(content)

        assert mistakes(TEXT, ENVIRON)[0] == f"bridge.toml:6: functions.f.environment.FROM_FILE: secret.txt: {why}"


class TestSecret:
    def test_prints_as_a_mask(self):
        secret = Secret(CANARY)

        assert {str(secret), f"{secret}", repr(secret)} == {MASK, f"Secret({MASK!r})"}

    def test_equality_is_of_values(self):
        assert Secret("a", written={"env": "A"}) == Secret("a")
        assert Secret("a") != Secret("b")
        assert Secret("a") != "a"
        assert len({Secret("a"), Secret("a")}) == 1

    def test_is_not_pickled(self):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(Secret("a"))
