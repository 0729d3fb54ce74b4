"""KMSKeyArn: variables sealed by a key of KMS; what KMS refuses is told in Lambda's words, and nobody sees a secret."""

import json

import pytest

from bridge.api.awslambda import sealing
from bridge.core.errors import KeyRefused, Unrunnable
from bridge.invokers.runtimes import Runtimes
from bridge.testing.clock import ManualClock
from tests.unit.api.making import FUNCTIONS, Made, MemoryFunctions, request

KEY = "arn:aws:kms:us-east-1:000000000000:key/1234abcd"
OTHER = "arn:aws:kms:us-east-1:000000000000:alias/other"
CANARY = "canary-of-kms"
ENVIRONMENT = {"Variables": {"SECRET": CANARY}}
SHOWN = f"{FUNCTIONS}/made/configuration"


class Kms:
    """Wraps by remembering; its keys may be refused."""

    def __init__(self):
        self.wrapped, self.refusal, self.asked = {}, None, []

    def _check(self, key):
        self.asked.append(key)
        if self.refusal is not None:
            raise self.refusal

    async def generate(self, key, context):
        self._check(key)
        blob = f"blob {len(self.wrapped)}".encode()
        self.wrapped[blob] = (f"{len(self.wrapped):032}".encode(), dict(context))
        return self.wrapped[blob][0], blob, key

    async def decrypt(self, key, wrapped, context):
        self._check(key)
        plain, bound = self.wrapped[wrapped]
        assert bound == context, "the context is the one that it was made with"
        return plain


def refusal(code="KMSDisabledException", **more):
    return KeyRefused("Lambda was unable to … because the KMS key used is disabled.", code=code, **more)


@pytest.fixture
async def api(tmp_path):
    made = Made(tmp_path, MemoryFunctions(), kms=Kms())
    made.kms, made.sealing._clock = made.sealing._kms, ManualClock()
    await made.made.open()
    yield made
    await made.world.close()


async def test_it_is_sealed_shown_published_and_found_again(api, tmp_path):
    made = await api.create(Environment=ENVIRONMENT, KMSKeyArn=KEY, Publish=True)
    assert (made["KMSKeyArn"], made["Environment"]) == (KEY, ENVIRONMENT)
    assert [context["Version"] for _, context in api.kms.wrapped.values()] == ["$LATEST", "1"]
    assert {context["FunctionArn"] for _, context in api.kms.wrapped.values()} == {
        "arn:aws:lambda:us-east-1:000000000000:function:made"
    }
    stored = json.dumps([part.decode() for part in api.made._store.rows["made"].values()])
    assert CANARY not in stored
    assert not (tmp_path / "key").exists(), "nothing needs the key file"

    again = Made(tmp_path, api.made._store, kms=api.kms)
    await again.made.open()
    assert (await again.json("GET", SHOWN))["Environment"] == ENVIRONMENT
    assert dict(again.catalog.get("made").version("1").environment) == {"SECRET": CANARY}
    unchanged = await again.json("POST", f"{FUNCTIONS}/made/versions", {}, 201)
    assert unchanged["Version"] == "1"


async def test_another_key_seals_what_is_there_anew_and_an_empty_one_is_the_key_file(api, tmp_path):
    await api.create(Environment=ENVIRONMENT)
    for key, expected in ((KEY, KEY), (OTHER, OTHER), ("", None)):
        changed = await api.json("PUT", SHOWN, {"KMSKeyArn": key})
        assert (changed.get("KMSKeyArn"), changed["Environment"]) == (expected, ENVIRONMENT)
        await api.settled()
    assert api.kms.asked == [KEY, OTHER], "each once, to make a key: what it made is known"
    api.kms.refusal = refusal()
    assert (await api.json("PUT", SHOWN, {"Timeout": 9}))["Environment"] == ENVIRONMENT


@pytest.mark.parametrize(
    "code", ["KMSAccessDeniedException", "KMSDisabledException", "KMSInvalidStateException", "KMSNotFoundException"]
)
async def test_a_key_that_cannot_be_used_refuses_the_change(api, code):
    api.kms.refusal = refusal(code)
    for more in ({"Environment": ENVIRONMENT}, {}):
        text = await api.refused("POST", FUNCTIONS, request(KMSKeyArn=KEY, **more), 502, code)
        assert CANARY not in text
    assert api.made.names() == ()
    await api.create(Environment=ENVIRONMENT)
    await api.refused("PUT", SHOWN, {"KMSKeyArn": KEY}, 502, code)
    assert "KMSKeyArn" not in await api.json("GET", SHOWN)


async def test_a_text_that_is_no_key_of_kms(api):
    await api.create()
    for text in ("mine", "arn:aws:kms:us-east-1:000000000000:", "arn:aws:kms:evil.example:000000000000:key/k"):
        assert "kMSKeyArn" in await api.refused("PUT", SHOWN, {"KMSKeyArn": text}, 400, "ValidationException")


async def test_refused_at_start_it_is_told_and_goes_on_when_kms_does(api, tmp_path):
    await api.create(Environment=ENVIRONMENT, KMSKeyArn=KEY)
    await api.create("plain", Environment={"Variables": {"AB": "1"}})
    api.kms.refusal = refusal()
    again = Made(tmp_path, api.made._store, kms=api.kms)
    again.sealing._clock = ManualClock()
    await again.made.open()

    shown = await again.json("GET", f"{FUNCTIONS}/made")
    told = {"Error": {"ErrorCode": "KMSDisabledException", "Message": str(refusal())}}
    assert shown["Configuration"]["Environment"] == told
    listed = {
        each["FunctionName"]: each.get("Environment") for each in (await again.json("GET", FUNCTIONS))["Functions"]
    }
    assert (listed["made"], listed["plain"]) == (told, {"Variables": {"AB": "1"}})
    version = again.catalog.get("made").latest
    with pytest.raises(Unrunnable, match="is disabled") as refused:
        await Runtimes(local=None, remote=None).invoke(version, None)
    assert (refused.value.code, refused.value.status) == ("KMSDisabledException", 502)
    await again.refused("POST", f"{FUNCTIONS}/made/versions", {}, 502, "KMSDisabledException")

    api.kms.refusal = None
    await again.made._ask_kms()
    assert again.catalog.get("made").latest.unrunnable, "it is not asked all the time"
    await again.sealing._clock.advance(sealing.KMS_REFUSED_S)
    await again.made._ask_kms()
    assert dict(again.catalog.get("made").latest.environment) == {"SECRET": CANARY}
    assert again.catalog.get("made").latest.revision == version.revision
    assert (await again.json("GET", SHOWN))["Environment"] == ENVIRONMENT


async def test_a_key_that_is_disabled_later_counts_and_one_out_of_reach_does_not(api):
    await api.create(Environment=ENVIRONMENT, KMSKeyArn=KEY)
    api.kms.refusal = refusal("KMSInvalidStateException", is_lasting=False)
    await api.sealing._clock.advance(sealing.KMS_ASKED_S)
    await api.made._ask_kms()
    assert (await api.json("GET", SHOWN))["Environment"] == ENVIRONMENT

    api.kms.refusal = refusal()
    await api.sealing._clock.advance(sealing.KMS_ASKED_S)
    await api.made._ask_kms()
    assert (await api.json("GET", SHOWN))["Environment"]["Error"]["ErrorCode"] == "KMSDisabledException"
    latest = api.catalog.get("made").latest
    assert (latest.unrunnable.split(":")[0], dict(latest.environment)) == ("KMSDisabledException", {})
    # given anew, sealed by the key file, it runs
    await api.json("PUT", SHOWN, {"KMSKeyArn": "", "Environment": ENVIRONMENT})
    await api.settled()
    assert not api.catalog.get("made").latest.unrunnable


async def test_what_is_gone_is_forgotten(api):
    await api.create(Environment=ENVIRONMENT, KMSKeyArn=KEY)
    assert len(api.sealing._asked) == 1
    await api.ask("DELETE", f"{FUNCTIONS}/made", status=204)
    await api.sealing._clock.advance(61)
    await api.made._ask_kms()
    assert not api.sealing._asked
