"""Webhook formats of services that notify: their settings, and what does not fit together."""

import pytest

from bridge.config.show import show

SOURCE = """\
[functions.f]
code = "code"
handler = "app.handler"
[sources.s]
type = "webhook"
path = "/s"
function = "f"
"""
ARN = "arn:aws:sns:eu-central-1:123456789012:orders"
SNS = SOURCE + f'format = "sns"\ntopics = ["{ARN}"]\n'


def source(loaded):
    return loaded.settings.webhooks["s"]


@pytest.mark.parametrize("format_", ["cloudevents", "sns", "s3", "eventbridge", "cloudwatch-logs"])
def test_every_format_is_known(load_text, format_):
    assert format_ == source(load_text(SOURCE + f'format = "{format_}"\nverify = "none"')).format


@pytest.mark.parametrize("topic", [ARN, ARN + "*", "arn:aws:sns:eu-central-1:123456789012:*", "*"])
def test_topics_are_handed_to_the_format(load_text, topic):
    loaded = load_text(SOURCE + f'format = "sns"\nverify = "sns"\ntopics = ["{topic}"]')

    assert {"topics": (topic,)} == source(loaded).format_options


@pytest.mark.parametrize(
    ("verify", "written", "remembered"),
    [
        ('"sns"', "", 3900),
        ('{ scheme = "sns", window_s = 7200 }', "", 7200),
        ('{ scheme = "sns", window_s = 7200.5 }', "", 7201),
        ('"sns"', "deduplicate_s = 60\n", 60),
        ('"none"', "", 300),
    ],
)
def test_what_sns_signs_is_remembered_while_it_is_good_unless_the_file_says_otherwise(
    load_text, verify, written, remembered
):
    loaded = load_text(SNS + written + f"verify = {verify}")

    assert remembered == source(loaded).deduplicate_s
    again = load_text(show(loaded.settings))
    assert remembered == source(again).deduplicate_s


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (SOURCE + 'verify = "sns"', 'verify = "sns" is for format = "sns"'),
        (
            SOURCE + 'format = "sns"\nverify = "sns"',
            'verify = "sns" shows that SNS sent it, not for whom: name the topics = ["arn:aws:sns:..."], or ["*"] for those',
        ),
        (SOURCE + f'topics = ["{ARN}"]\nverify = "none"', 'topics is for format = "sns"'),
        (SOURCE + 'format = "s3"\nlog_group = "g"\nverify = "none"', 'log_group is for format = "cloudwatch-logs"'),
        (
            SOURCE + 'format = "eventbridge"\nbus_source = "a"\nverify = "none"',
            "bus_source and detail_type belong together",
        ),
        (
            SOURCE + 'format = "sns"\ntopics = ["orders"]\nverify = "none"',
            "must be an ARN: arn:aws:SERVICE:REGION:ACCOUNT:",
        ),
        (
            SOURCE + f'format = "sns"\ntopics = ["{ARN.replace("sns", "sqs")}"]\nverify = "none"',
            "must be the ARN of a topic",
        ),
        (SOURCE + 'format = "sns"\ntopics = [""]\nverify = "none"', "must be an ARN"),
        (SNS + 'verify = { scheme = "sns", secrets = [{ env = "S" }] }', "must be left out"),
        (SNS + 'verify = { scheme = "sns", window_s = 59 }', "must be at least 60"),
        (SNS + 'verify = { scheme = "sns", window_s = inf }', "must be a finite number"),
        (SNS + 'verify = { scheme = "sns", window_s = "1h" }', "must be a number"),
        (SOURCE + 'format = "cloudevent"\nverify = "none"', "did you mean cloudevents?"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(mistakes, text, mistake):
    (found,) = mistakes(text, {"S": "s"})

    assert mistake in found


def test_the_handshake_of_cloudevents_has_its_method_to_itself(mistakes):
    other = '[sources.o]\ntype = "webhook"\npath = "/s"\nfunction = "f"\nmethods = ["OPTIONS"]\nverify = "none"\n'

    (found,) = mistakes(SOURCE + 'format = "cloudevents"\nverify = "none"\n' + other)

    assert "OPTIONS on this path is already the route of sources.s" in found


STREAM = """
[mappings.m]
source = "s"
function = "f"
key = "{key}"
"""


def test_as_a_stream_its_key_is_of_the_body(load_text, mistakes):
    text = SOURCE + 'format = "cloudevents"\nverify = "none"\n' + STREAM

    assert "webhook-event" == source(load_text(text.format(key="body:subject"))).form
    (found,) = mistakes(text.format(key="header:ce-subject"))
    assert found.endswith("mappings.m.key: an event of format cloudevents has no headers; write body:FIELD")
