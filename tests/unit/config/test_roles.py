"""`[roles]`, `[roles.X]` and `role` of functions: what they become, and the mistakes that are told."""

import pytest

from bridge.config.functions import function_specs
from bridge.config.load import load
from bridge.config.mistakes import ConfigErrors
from bridge.config.roles import declared_roles, unknown_may
from bridge.config.show import show

QUEUE = "arn:aws:sqs:us-east-1:000000000000:dead"
FUNCTION = '[functions.f]\ncode = "f"\nhandler = "app.handler"\n'


@pytest.fixture
def read(tmp_path):
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "app.py").write_text("def handler(event, context): pass\n")

    def read(text):
        path = tmp_path / "bridge.toml"
        path.write_text(text)
        return load(path, {}).settings

    return read


def told(read, text):
    with pytest.raises(ConfigErrors) as caught:
        read(text)
    return "\n".join(caught.value.mistakes)


def test_a_function_names_a_role_of_the_file(read):
    settings = read('account = "123456789012"\n[roles.worker]\nmanaged = ["LambdaSQSQueueExecutionRole"]\n'
                    'statements = [{ Effect = "Deny", Action = "sqs:Delete*", Resource = "*" }]\n'
                    + FUNCTION + 'role = "worker"\n')  # fmt: skip

    arn = "arn:aws:iam::123456789012:role/worker"
    assert [spec.role for spec in function_specs(settings)] == [arn]
    role = declared_roles(settings)[arn]
    assert role.allows("sqs:ReceiveMessage", QUEUE)
    assert not role.allows("sqs:DeleteMessage", QUEUE)


def test_a_function_names_an_arn_or_has_no_role(read):
    arn = "arn:aws:iam::999999999999:role/service-role/other"

    assert [spec.role for spec in function_specs(read(FUNCTION + f'role = "{arn}"\n'))] == [arn]
    assert [spec.role for spec in function_specs(read(FUNCTION))] == [""]


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ('region = "us-east-1"\n', True),
        ('[roles]\nunknown = "deny"\n', False),
        ("[roles.r]\n", True),
        ('[listen]\napi = "0.0.0.0:8581"\ntls = "off"\n', True),
        ('[listen]\napi = "0.0.0.0:8581"\ntls = "off"\n[roles.r]\n', False),
        ('[listen]\napi = "0.0.0.0:8581"\ntls = "off"\n[roles.r]\n[roles]\nunknown = "allow"\n', True),
    ],
)
def test_what_unknown_roles_may(read, text, may):
    assert unknown_may(read(text)) is may


def test_the_file_shows_itself(read, tmp_path):
    settings = read('[roles]\nunknown = "deny"\n[roles.worker]\nmanaged = ["LambdaBasicExecutionRole"]\n')

    again = read(show(settings))
    assert again.roles == settings.roles
    assert declared_roles(again) == declared_roles(settings)


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ('[roles.r]\nmanaged = ["AWSLambdaBasicExecution"]\n', "AWSLambdaBasicExecutionRole"),
        ("[roles.r]\nstatments = []\n", "statements"),
        ('[roles.r]\nstatements = [{ Effect = "Allow", Action = "*" }]\n', "either Resource or NotResource"),
        ('[roles.r]\nstatements = [{ Effect = "Allow", "a\\tb" = 1 }]\n', "a\\tb: not a member of a role's statement"),
        ('[roles."a b"]\n', "a name is 1..64"),
        ("[roles.bridge]\n", "is what functions show that have no role"),
        ('[roles]\nunknown = "maybe"\n', 'must be "allow" or "deny"'),
        ('[roles]\nconnection = "aws"\n', "no connection aws here"),
        ("[roles]\nworker = 3\n", "must be a table"),
        (FUNCTION + 'role = "worker"\n[roles.workers]\n', "no role worker here; did you mean workers?"),
        (FUNCTION + 'role = "a/b"\n', "Its execution role"),
    ],
)
def test_mistakes(read, text, mistake):
    assert mistake in told(read, text)


@pytest.mark.parametrize("written", ["worker", "arn:aws:iam::000000000000:role/worker"])
def test_a_target_that_the_role_may_not_write_to_is_refused_in_awss_words(read, written):
    text = (
        FUNCTION + f'role = "{written}"\ndead_letter_config = {{ target_arn = "{QUEUE}" }}\n[roles.worker]\nmanaged = '
        '["LambdaBasicExecutionRole"]\n'
    )

    assert "The provided execution role does not have permissions to call SendMessage on SQS" in told(read, text)
    allowed = f'statements = [{{ Effect = "Allow", Action = "sqs:SendMessage", Resource = "{QUEUE}" }}]\n'
    assert read(text + allowed).functions["f"].role == written
