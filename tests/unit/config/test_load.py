"""What a file without mistakes becomes: typed, frozen settings with paths, variables and overrides resolved."""

from ipaddress import ip_network
from pathlib import Path

import pytest
from pydantic import ValidationError

from bridge.config.document import state_folder
from bridge.config.functions import function_specs
from bridge.config.load import load
from bridge.config.mistakes import ConfigErrors
from bridge.config.settings import Settings, TlsFiles
from bridge.config.values import Address
from bridge.core.function import EventInvokeConfig
from bridge.core.invocation import InvocationType

FUNCTION = '[functions.f]\ncode = "code"\nhandler = "app.handler"\n'
SOURCE = FUNCTION + '[sources.s]\ntype = "webhook"\npath = "/s"\nfunction = "f"\n'


class TestDefaults:
    """A file says only what it changes."""

    def test_of_everything(self, load_text):
        settings = load_text().settings

        assert (settings.listen.public, settings.listen.api) == (Address("127.0.0.1", 8580), Address("127.0.0.1", 8581))
        assert (settings.listen.tls, settings.log.format, settings.drain_grace_s) == ("off", "auto", 25)
        assert (settings.invocation.account_concurrency, settings.runtime.workers_max) == (1000, None)
        assert settings == load_text().settings

    def test_code_alone_makes_settings_too(self, folder):
        assert Settings().journal.retention_days == 7
        assert Settings().state == folder / ".bridge"

    def test_of_a_route(self, load_text):
        source = load_text().settings.sources["hello"]

        assert (source.invocation_type, source.deduplicate_s, source.body_max_bytes) == (
            InvocationType.EVENT,
            300,
            1 << 20,
        )
        assert source.allowed_methods == {"POST"}
        assert source.scheme.scheme == "none"

    def test_of_a_route_that_waits(self, load_text):
        source = load_text(SOURCE + 'verify = "none"\ninvocation_type = "RequestResponse"').settings.sources["s"]

        assert source.allowed_methods == {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

    def test_nothing_can_be_changed(self, load_text):
        settings = load_text().settings

        with pytest.raises(ValidationError):
            settings.listen.tls = "upstream"


class TestPaths:
    """Relative paths start at the file, wherever the command was typed."""

    def test_from_another_folder(self, folder, load_text, monkeypatch):
        load_text('state = "var"\n' + FUNCTION)
        (folder / "elsewhere").mkdir()
        monkeypatch.chdir(folder / "elsewhere")

        settings = load(Path("../bridge.toml"), {}).settings

        assert (settings.state, settings.functions["f"].code) == (folder / "var", folder / "code")

    def test_state_that_no_file_names_is_in_the_working_directory(self, folder, load_text, monkeypatch):
        load_text(FUNCTION)
        (folder / "elsewhere").mkdir()
        monkeypatch.chdir(folder / "elsewhere")

        assert load(folder / "bridge.toml", {}).settings.state == folder / "elsewhere" / ".bridge"

    def test_links_stay_links(self, folder, load_text):
        (folder / "current").symlink_to("code")

        assert load_text(FUNCTION.replace('"code"', '"current"')).settings.functions["f"].code == folder / "current"

    def test_the_file_itself(self, folder, load_text):
        assert load_text().path == folder / "bridge.toml"


class TestOverrides:
    """Four variables override the file, as an image needs."""

    def test_all(self, folder, load_text):
        environ = {
            "BRIDGE_STATE": "var",
            "BRIDGE_PUBLIC": "0.0.0.0:1",
            "BRIDGE_API": "0.0.0.0:2",
            "BRIDGE_TLS": "upstream",
        }
        settings = load_text('state = "other"\nlisten = { tls = "off" }\n' + FUNCTION, environ).settings

        assert settings.state == folder / "var"
        assert (str(settings.listen.public), str(settings.listen.api)) == ("0.0.0.0:1", "0.0.0.0:2")
        assert settings.listen.tls == "upstream"

    def test_empty_ones_count_as_unset(self, load_text):
        assert load_text(environ={"BRIDGE_TLS": "", "BRIDGE_PUBLIC": ""}).settings.listen.tls == "off"

    def test_a_variable_that_is_not_set_does_not_matter_where_it_is_overridden(self, load_text):
        text = "listen = { public = '${GONE}' }\n" + FUNCTION

        assert load_text(text, {"BRIDGE_PUBLIC": "[::1]:1"}).settings.listen.public == Address("::1", 1)

    def test_tls_off_is_written_by_the_variable_too(self, load_text):
        environ = {"BRIDGE_PUBLIC": "0.0.0.0:1", "BRIDGE_TLS": "off"}

        assert load_text(environ=environ).settings.listen.tls == "off"


class TestListeners:
    @pytest.mark.parametrize("address", ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1"])
    def test_loopback_needs_no_tls(self, load_text, address):
        assert str(load_text(f'listen = {{ public = "{address}" }}\n' + FUNCTION).settings.listen.public) == address

    @pytest.mark.parametrize("tls", ["off", "upstream"])
    def test_other_addresses_with_tls_written(self, load_text, tls):
        text = f'listen = {{ public = "0.0.0.0:0", api = "[::]:0", tls = "{tls}" }}\n' + FUNCTION

        assert load_text(text).settings.listen.tls == tls

    def test_two_free_ports(self, load_text):
        listen = load_text('listen = { public = "127.0.0.1:0", api = "127.0.0.1:0" }\n' + FUNCTION).settings.listen

        assert listen.public.port == listen.api.port == 0

    def test_certificate_and_key(self, folder, load_text, pair):
        loaded = load_text('[listen]\ntls = { cert = "cert.pem", key = "key.pem" }\npublic = "0.0.0.0:1"\n' + FUNCTION)

        assert loaded.settings.listen.tls == TlsFiles(cert=folder / "cert.pem", key=folder / "key.pem")
        assert loaded.warnings == ()

    def test_key_that_others_can_read(self, folder, load_text, pair):
        (folder / "key.pem").chmod(0o640)
        loaded = load_text('[listen]\ntls = { cert = "cert.pem", key = "key.pem" }\n' + FUNCTION)

        assert loaded.warnings == (
            "bridge.toml:2: listen.tls.key: the file can be read by others (mode 0640); chmod 600 it",
        )

    @pytest.mark.parametrize("target", ["made", "made:live", "made:$LATEST", "f:7", "f:live"])
    def test_a_function_that_lambdas_api_makes(self, load_text, target):
        loaded = load_text(SOURCE.replace('function = "f"', f'function = "{target}"') + 'verify = "none"')

        assert loaded.settings.sources["s"].function == target
        told = "no function made in this file: one is meant that Lambda's API makes"
        assert loaded.warnings == ((f"bridge.toml:7: sources.s.function: {told}",) if "made" in target else ())

    def test_a_function_that_is_most_likely_another(self, load_text):
        text = SOURCE.replace("functions.f]", "functions.orders]").replace('"f"', '"order"') + 'verify = "none"'

        assert load_text(text).warnings[0].endswith("one is meant that Lambda's API makes; did you mean orders?")

    def test_proxies_and_hosts(self, load_text):
        text = 'listen = { trusted_proxies = ["10.0.0.0/8", "::1"], hosts = ["Bridge.internal"] }\n' + FUNCTION
        listen = load_text(text).settings.listen

        assert [ip_network(text) for text in listen.trusted_proxies] == [
            ip_network("10.0.0.0/8"),
            ip_network("::1/128"),
        ]
        assert listen.hosts == ("bridge.internal",)


class TestVariables:
    def test_in_any_string(self, load_text):
        text = "region = '${A}-${B:-west}-${C:-1}'\nlisten = { hosts = ['${HOST}'] }\n" + FUNCTION
        settings = load_text(text, {"A": "eu", "HOST": "h", "C": ""}).settings

        assert (settings.region, settings.listen.hosts) == ("eu-west-1", ("h",))

    def test_escaped(self, load_text):
        text = FUNCTION + "environment = { SHELL_LIKE = '$${A} $A ${A}' }"

        assert load_text(text, {"A": "x"}).settings.functions["f"].environment["SHELL_LIKE"].reveal() == "${A} $A x"

    def test_a_value_is_not_expanded_again(self, load_text):
        text = FUNCTION + "environment = { VALUE = '${A}' }"

        assert load_text(text, {"A": "${B}"}).settings.functions["f"].environment["VALUE"].reveal() == "${B}"


class TestFunctions:
    def test_become_specs(self, folder, load_text):
        text = (
            FUNCTION
            + """\
timeout_s = 60
memory_mb = 512
reserved_concurrency = 0
environment = { STAGE = "prod", PASSWORD = { env = "P" } }
event_invoke = { maximum_retry_attempts = 1, retry_delays_s = [1, 2.5] }
"""
        )
        (spec,) = function_specs(load_text(text, {"P": "pw"}).settings)

        assert (spec.name, spec.code, spec.handler) == ("f", folder / "code", "app.handler")
        assert (spec.timeout_s, spec.memory_mb, spec.reserved_concurrency) == (60, 512, 0)
        assert spec.environment == {"STAGE": "prod", "PASSWORD": "pw"}
        assert spec.event_invoke == EventInvokeConfig(maximum_retry_attempts=1, retry_delays_s=(1, 2.5))
        assert "pw" not in repr(spec)

    @pytest.mark.parametrize("handler", ["pkg.handler", "pkg/sub.handler", "pkg.sub.handler", "ext.handler"])
    def test_where_the_handler_may_be(self, folder, load_text, handler):
        (folder / "code" / "pkg").mkdir()
        for name in ("pkg/__init__.py", "pkg/sub.py", "ext.cpython-311-x86_64-linux-gnu.so"):
            (folder / "code" / name).touch()

        assert load_text(FUNCTION.replace("app.handler", handler)).settings.functions["f"].handler == handler

    def test_4096_bytes_of_environment_are_allowed(self, load_text):
        load_text(FUNCTION + f"environment = {{ BIG = '{'x' * 4086}' }}")


class TestStateFolder:
    """Commands that talk to a daemon find its folder without reading the rest of the file."""

    def test_order(self, folder):
        assert state_folder(None, {}) == folder / ".bridge"
        (folder / "bridge.toml").write_text('state = "${VAR:-var}/s"\nunknown = 1\n')
        assert state_folder(None, {}) == folder / "var" / "s"
        assert state_folder(None, {"VAR": "x"}) == folder / "x" / "s"
        assert state_folder(None, {"BRIDGE_STATE": "there"}) == folder / "there"

    def test_named_file_that_is_missing(self, folder):
        with pytest.raises(ConfigErrors, match="no such file"):
            state_folder(Path("gone.toml"), {})
