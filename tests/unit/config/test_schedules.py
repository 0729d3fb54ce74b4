"""`type = "schedule"`: what a file may say of times, and where a mistake is told."""

import pytest

from bridge.config.load import load
from bridge.config.mistakes import ConfigErrors
from bridge.core.schedules import Missed

FUNCTION = '[functions.f]\ncode = "f"\nhandler = "app.handler"\n'
SOURCE = FUNCTION + '[sources.s]\ntype = "schedule"\nfunction = "f"\n'


@pytest.fixture
def read(tmp_path):
    (tmp_path / "f").mkdir()
    (tmp_path / "f/app.py").write_text("def handler(event, context): ...")

    def read(text):
        (tmp_path / "bridge.toml").write_text(text)
        return load(tmp_path / "bridge.toml", {}).settings

    return read


def test_a_schedule_has_defaults(read):
    source = read(SOURCE + 'schedule = "rate(5 minutes)"').schedules["s"]

    assert (source.timezone, source.missed, source.input, source.invocation_type) == ("UTC", Missed.ONCE, None, "Event")


def test_everything_may_be_said(read):
    source = read(
        SOURCE + 'schedule = "cron(0 10 ? * MON-FRI *)"\ntimezone = "Europe/Berlin"\nmissed = "all"\ninput = "[1]"\n'
    ).schedules["s"]

    assert (source.timezone, source.missed, source.input) == ("Europe/Berlin", Missed.ALL, "[1]")


def test_one_that_a_mapping_reads_needs_no_function(read):
    settings = read(
        FUNCTION
        + '[sources.s]\ntype = "schedule"\nschedule = "rate(1 hour)"\n[mappings.m]\nsource = "s"\nfunction = "f"\n'
    )

    assert settings.schedules["s"].function is None


@pytest.mark.parametrize(
    ("lines", "mistake"),
    [
        ("", "4: sources.s.schedule: missing: rate(5 minutes), cron(0 10 * * ? *) or at(2026-03-01T09:00:00)"),
        ('schedule = "cron(0 25 * * ? *)"', "7: sources.s.schedule: at character 8: hours is 0 to 23, not 25"),
        ('schedule = "5 minutes"', "7: sources.s.schedule: at character 1: must be rate(5 minutes)"),
        ('schedule = "rate(1 hour)"\ntimezone = "Europe/Berlyn"', "8: sources.s.timezone: no time zone of that name here; such as UTC or Europe/Berlin; did you mean Europe/Berlin?"),
        ('schedule = "at(2026-03-29T02:30:00)"\ntimezone = "Europe/Berlin"', "7: sources.s.schedule: at character 4: this time does not exist"),
        ('schedule = "rate(1 hour)"\nmissed = "twice"', '8: sources.s.missed: must be "skip", "once" or "all"'),
        ('schedule = "rate(1 hour)"\ninput = "{a}"', "8: sources.s.input: must be JSON, the event as it is:"),
        ('schedule = "rate(1 hour)"\ninvocation_type = "RequestResponse"', '8: sources.s.invocation_type: must be "Event"'),
        ('schedule = "rate(1 hour)"\npath = "/x"', "8: sources.s.path: unknown key"),
        ('shedule = "rate(1 hour)"', "7: sources.s.shedule: unknown key; did you mean schedule?"),
        ('schedule = "rate(1 hour)"\nfunction = "g:"', "a qualifier is $LATEST, a version's number or an alias"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_at_its_key(read, lines, mistake):
    text = SOURCE.replace('function = "f"\n', "") if "function =" in lines else SOURCE
    with pytest.raises(ConfigErrors) as caught:
        read(text + lines + "\n")

    assert any(mistake in line for line in caught.value.mistakes), caught.value.mistakes


def test_a_schedule_that_nobody_hears_is_a_mistake(read):
    with pytest.raises(ConfigErrors, match="name a function, or have a mapping read this source"):
        read(FUNCTION + '[sources.s]\ntype = "schedule"\nschedule = "rate(1 hour)"\n')


def test_an_input_above_what_an_event_may_have_is_a_mistake(read):
    with pytest.raises(
        ConfigErrors, match=r"sources\.s\.input: has 102 bytes; invocation\.async_payload_max_bytes is 100"
    ):
        read(
            "[invocation]\nasync_payload_max_bytes = 100\n"
            + SOURCE
            + f"schedule = 'rate(1 hour)'\ninput = '\"{'x' * 100}\"'\n"
        )
