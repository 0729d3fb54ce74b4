"""Every mistake is one line: file, line number, key, what is wrong and what to write instead."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.config.load import load
from bridge.config.mistakes import MISTAKES_MAX, ConfigErrors

GOOD = """\
[functions.hello]
code = "code"
handler = "app.handler"
"""


def refused(path) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        load(path, {})
    return list(caught.value.mistakes)


class TestFiles:
    """What is no configuration file at all."""

    def test_no_file_named_and_none_here(self, folder):
        assert refused(None) == ["bridge.toml: not in this folder; name the configuration: bridge --config FILE …"]

    def test_missing(self, folder):
        assert refused(Path("other.toml")) == ["other.toml: no such file or directory"]

    def test_folder(self, folder):
        assert refused(Path("code")) == ["code: is a folder, not a file"]

    def test_symlink_loop(self, folder):
        (folder / "a.toml").symlink_to("b.toml")
        (folder / "b.toml").symlink_to("a.toml")

        assert refused(Path("a.toml")) == ["a.toml: too many levels of symbolic links"]

    def test_dangling_symlink_as_the_default_file(self, folder):
        (folder / "bridge.toml").symlink_to("gone")

        assert refused(None) == ["bridge.toml: no such file or directory"]

    def test_fifo_does_not_wait_for_a_writer(self, folder):
        os.mkfifo(folder / "pipe.toml")

        assert refused(Path("pipe.toml")) == ["pipe.toml: not a regular file"]

    def test_socket(self, folder):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("s.toml")

            assert refused(Path("s.toml")) == ["s.toml: no such device or address"]

    def test_hundred_megabytes_are_not_read(self, folder):
        with (folder / "big.toml").open("wb") as file:
            file.truncate(100 << 20)

        assert refused(Path("big.toml")) == ["big.toml: larger than 1,048,576 bytes"]

    def test_name_with_nul(self, folder):
        assert refused(Path("a\0b")) == ["a\0b: not a path"]

    @pytest.mark.parametrize("text", [b"", b"\n \t\n", b"\xef\xbb\xbf"])
    def test_empty(self, mistakes, text):
        assert mistakes(text) == ["bridge.toml: the file is empty"]

    def test_not_utf8(self, mistakes):
        assert mistakes(b"a = 1\nb = '\xff'\n") == ["bridge.toml:2: not UTF-8"]

    def test_absolute_name_is_shown_as_named(self, folder):
        path = folder / "x.toml"
        path.write_text("stat = 'x'")

        assert refused(path) == [f"{path}:1: stat: unknown key; did you mean state?"]


class TestSyntax:
    """What is not TOML, or not what its writer thinks."""

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("state = off", "bridge.toml:1: not TOML: invalid value"),
            ("\n\nstate = yes", "bridge.toml:3: not TOML: invalid value"),
            ("a = 1\nlog: {}\n", "bridge.toml:2: not TOML: expected '=' after a key in a key/value pair"),
            ("a = 1\n\n[log", "bridge.toml:3: not TOML: expected ']' at the end of a table declaration"),
            ("state = 'a'\nstate = 'b'", "bridge.toml:2: a key or table is given twice (cannot overwrite a value)"),
            (
                "[log]\n[listen]\n[log]\n",
                "bridge.toml:3: a key or table is given twice (cannot declare ('log',) twice)",
            ),
            ("log = { level = 'info', level = 'debug' }", "duplicate inline table key 'level'"),
            ("a = 1979-02-31", "bridge.toml:1: not TOML: invalid date or datetime"),
            ("a = [1,\n", "bridge.toml:1: not TOML: "),
            ("a = 'x\r'", "bridge.toml:1: not TOML: "),
            ("a = '\0'", "bridge.toml:1: not TOML: "),
            ("a: &a [x]\nb: [*a, *a]", "bridge.toml:1: not TOML: "),
            ("a = " + "[" * 50_000, "bridge.toml: nested too deeply"),
            ("a = " + "9" * 5000, "bridge.toml: not TOML: "),
        ],
    )
    def test_one_line(self, mistakes, text, line):
        (mistake,) = mistakes(text)

        assert line in mistake
        assert mistake.startswith("bridge.toml:")
        assert "\n" not in mistake

    def test_deep_nesting_that_tomllib_reads(self, mistakes):
        (mistake, *_) = mistakes("x = " + "[" * 100 + "]" * 100)

        assert mistake.startswith("bridge.toml:1: x")

    def test_windows_line_ends_byte_order_mark_and_tabs_are_fine(self, load_text):
        text = "\ufeff" + GOOD.replace("\n", "\r\n").replace(" = ", "\t=\t")

        assert set(load_text(text).settings.functions) == {"hello"}

    def test_lines_count_the_same_with_windows_line_ends(self, mistakes):
        assert mistakes("\r\n\r\nstat = 'x'\r\n") == ["bridge.toml:3: stat: unknown key; did you mean state?"]


FUNCTION = '[functions.f]\ncode = "code"\nhandler = "app.handler"\n'
SOURCE = FUNCTION + '[sources.s]\ntype = "webhook"\npath = "/s"\nfunction = "f"\n'


class TestKeys:
    """One key at a time; each text is spoiled in one place."""

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            # unknown keys, sections of what is not built yet
            ("retension = 1", "1: retension: unknown key"),
            ("[journal]\nretension_days = 1", "2: journal.retension_days: unknown key; did you mean retention_days?"),
            (FUNCTION + "tiemout_s = 3", "4: functions.f.tiemout_s: unknown key; did you mean timeout_s?"),
            (FUNCTION + "tags = ['x']", "4: functions.f.tags: unknown key"),
            (
                SOURCE + "verify = { scheme = 'stripe', secrets = [{ env = 'S' }], windows_s = 1 }",
                "8: sources.s.verify.windows_s: unknown key; did you mean window_s?",
            ),
            (
                SOURCE + "verify = { scheme = 'github', secrets = [{ env = 'S' }], window_s = 1 }",
                "8: sources.s.verify.window_s: unknown key",
            ),
            ('"a b\\u001b" = 1', '1: "a b\\u001b": unknown key'),
            # wrong types
            ("drain_grace_s = true", "1: drain_grace_s: must be a number of seconds, not a boolean"),
            ("drain_grace_s = nan", "1: drain_grace_s: must be a finite number"),
            ("drain_grace_s = inf", "1: drain_grace_s: must be a finite number"),
            ("drain_grace_s = '25'", "1: drain_grace_s: must be a number of seconds, not a string"),
            ("journal = 5", "1: journal: must be a table, not a whole number"),
            ("journal = []", "1: journal: must be a table, not an array"),
            ("functions = 'x'", "1: functions: must be a table, not a string"),
            ("[functions]\nf = 3", "2: functions.f: must be a table, not a whole number"),
            ("account = 123456789012", "1: account: must be a string, not a whole number"),
            ("state = 1979-05-27", "1: state: must be a string"),
            (FUNCTION + "timeout_s = '5m'", "4: functions.f.timeout_s: must be a whole number of seconds, not a string"),
            (FUNCTION + "timeout_s = 5.0", "4: functions.f.timeout_s: must be a whole number of seconds, not a number with a point"),
            (FUNCTION + "memory_mb = true", "4: functions.f.memory_mb: must be a whole number of MB, not a boolean"),
            (FUNCTION + "event_invoke = { retry_delays_s = 3 }", "4: functions.f.event_invoke.retry_delays_s: must be an array, not a whole number"),
            # ranges
            ("drain_grace_s = -1", "1: drain_grace_s: must be at least 0, not -1"),
            ("drain_grace_s = 901", "1: drain_grace_s: must be at most 900, not 901"),
            (FUNCTION + "timeout_s = 0", "4: functions.f.timeout_s: must be at least 1, not 0"),
            (FUNCTION + "timeout_s = 901", "4: functions.f.timeout_s: must be at most 900, not 901"),
            (FUNCTION + "memory_mb = 127", "4: functions.f.memory_mb: must be at least 128, not 127"),
            (FUNCTION + "memory_mb = 10241", "4: functions.f.memory_mb: must be at most 10240, not 10241"),
            (FUNCTION + "ephemeral_storage_mb = 511", "4: functions.f.ephemeral_storage_mb: must be at least 512, not 511"),
            (FUNCTION + "reserved_concurrency = -1", "4: functions.f.reserved_concurrency: must be at least 0, not -1"),
            (FUNCTION + "timeout_s = 99999999999999999999", "4: functions.f.timeout_s: must be at most 900"),
            (FUNCTION + "event_invoke = { maximum_retry_attempts = 3 }", "4: functions.f.event_invoke.maximum_retry_attempts: must be at most 2, not 3"),
            (FUNCTION + "event_invoke = { maximum_event_age_s = 59 }", "4: functions.f.event_invoke.maximum_event_age_s: must be at least 60, not 59"),
            (FUNCTION + "event_invoke = { retry_delays_s = [] }", "4: functions.f.event_invoke.retry_delays_s: must have at least 1 item"),
            (FUNCTION + "event_invoke = { retry_delays_s = [\n1,\n-2] }", "6: functions.f.event_invoke.retry_delays_s[1]: must be at least 0, not -2"),
            ("[journal]\nretention_days = 0", "2: journal.retention_days: must be more than 0, not 0"),
            ("[invocation]\nasync_payload_max_bytes = 6291457", "2: invocation.async_payload_max_bytes: must be at most 6291456, not 6291457"),
            (SOURCE + "verify = 'none'\nbody_max_bytes = 6291457", "9: sources.s.body_max_bytes: must be at most 6291456, not 6291457"),
            # words
            ("log = { level = 'inf' }", '1: log.level: must be "debug", "info", "warning" or "error"; did you mean info?'),
            ("log = { format = true }", '1: log.format: must be "auto", "console" or "json"'),
            (FUNCTION + "memory_mb = 130\n[invocation]\nlegacy_memory_steps = true", "4: functions.f.memory_mb: must be a multiple of 64, 3008 at most, with invocation.legacy_memory_steps"),
            (FUNCTION + "memory_mb = 3072\n[invocation]\nlegacy_memory_steps = true", "4: functions.f.memory_mb: must be a multiple of 64, 3008 at most, with invocation.legacy_memory_steps"),
            ("[runtime]\nsandbox = 'none'", '2: runtime.sandbox: must be "auto" or "basic"'),
            (FUNCTION + "event_invoke = { on_failure = 'drop' }", '4: functions.f.event_invoke.on_failure: must be "spill"'),
            (SOURCE + "verify = 'none'\ninvocation_type = 'event'", '9: sources.s.invocation_type: must be "Event", "RequestResponse" or "DryRun"; did you mean Event?'),
            (SOURCE + "verify = 'none'\nformat = 'cognito'", '4: sources.s: format = "cognito" answers what the function returns: it needs invocation_type = "RequestResponse"'),
            (SOURCE + "verify = 'none'\nmulti_value_headers = true", '4: sources.s: multi_value_headers is for format = "alb"'),
            (SOURCE + "verify = 'none'\nformat = 'alb'\nbinary_media_types = ['*/*']", '4: sources.s: binary_media_types is for format = "apigateway-v1"'),
            (SOURCE + "verify = 'none'\nmethods = ['post']", '9: sources.s.methods[0]: must be "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE" or "OPTIONS"; did you mean POST?'),
            (SOURCE + "verify = 'none'\nmethods = []", "9: sources.s.methods: must have at least 1 item"),
            ("region = 'moon'", "1: region: not a valid value: Region in ARNs, such as eu-central-1"),
            ("account = '1234'", "1: account: not a valid value: Account in ARNs, 12 digits"),
            # names
            ("[functions.'a b']\ncode='code'\nhandler='app.handler'", '1: functions."a b": a name is 1..64 of a-z A-Z 0-9 _ -'),
            (f"[functions.{'x' * 65}]\ncode='code'\nhandler='app.handler'", f"1: functions.{'x' * 65}: a name is 1..64 of a-z A-Z 0-9 _ -"),
            # functions
            ("[functions.f]\nhandler = 'app.handler'", "1: functions.f.code: missing: Folder that becomes the task root"),
            ("\n[functions.f]\ncode = 'code'", "2: functions.f.handler: missing: module.function; folder/module.function in a subfolder"),
            ("[functions.f]\ncode = ''\nhandler = 'app.handler'", "2: functions.f.code: must be a path"),
            ("[functions.f]\ncode = 'code/app.py'\nhandler = 'app.handler'", "2: functions.f.code: {folder}/code/app.py is not a folder"),
            ("[functions.f]\ncode = 'cod'\nhandler = 'app.handler'", "2: functions.f.code: no such folder: {folder}/cod"),
            ("[functions.f]\ncode = 'code'\nhandler = 'x'", "3: functions.f.handler: must be module.function, such as app.handler or folder/app.handler"),
            ("[functions.f]\ncode = 'code'\nhandler = 'app .handler'", "3: functions.f.handler: must be 1..128 characters without spaces"),
            ("[functions.f]\ncode = 'code'\nhandler = 'main.handler'", "3: functions.f.handler: no main.py in the code folder"),
            ("[functions.f]\ncode = 'code'\nhandler = 'a.b.c'", "3: functions.f.handler: no a/b.py in the code folder"),
            ("[functions.f]\ncode = 'code'\nhandler = 'os.system'", "3: functions.f.handler: no os.py in the code folder"),
            ("[functions.f]\ncode = 'code'\nhandler = '../code/app.handler'", "3: functions.f.handler: must be module.function, such as app.handler or folder/app.handler"),
            # environment
            (FUNCTION + "environment = { AWS_REGION = 'x' }", "4: functions.f.environment.AWS_REGION: is set by the runtime and may not be set here"),
            (FUNCTION + "environment = { A = 'x' }", "4: functions.f.environment.A: a variable's name is a letter, then at least one letter, digit or underscore"),
            (FUNCTION + "environment = { _AB = 'x' }", "4: functions.f.environment._AB: a variable's name is a letter, then at least one letter, digit or underscore"),
            (FUNCTION + "environment = { PORT = 80 }", '4: functions.f.environment.PORT: must be a string; put it in quotes: "..."'),
            (FUNCTION + 'environment = { NUL = "a\\u0000" }', "4: functions.f.environment.NUL: must not contain NUL"),
            (FUNCTION + f"environment = {{ BIG = '{'x' * 4087}' }}", "4: functions.f.environment: names and values are 4097 bytes together; at most 4096 are allowed"),
            (FUNCTION + "environment = { DB = { env = 'GONE' } }", "4: functions.f.environment.DB: GONE is not set in the environment"),
            (FUNCTION + "environment = { DB = { env = 'EMPTY' } }", "4: functions.f.environment.DB: EMPTY is empty in the environment"),
            (FUNCTION + "environment = { DB = { env = 'A B' } }", '4: functions.f.environment.DB: env names no variable; write { env = "NAME" } or { file = "path" }'),
            (FUNCTION + "environment = { DB = { file = 'gone' } }", "4: functions.f.environment.DB: gone: no such file or directory"),
            (FUNCTION + "environment = { DB = { file = 'code' } }", "4: functions.f.environment.DB: code: is a folder, not a file"),
            (FUNCTION + "environment = { DB = { vault = 'x' } }", '4: functions.f.environment.DB: must be a reference to a secret; write { env = "NAME" } or { file = "path" }'),
            # sources
            (SOURCE.replace('type = "webhook"\n', "") + "verify = 'none'", '4: sources.s.type: missing; write type = "webhook", "mqtt" or "schedule"'),
            (SOURCE.replace('"webhook"', "'mqt'") + "verify = 'none'", '5: sources.s.type: must be "webhook", "mqtt" or "schedule"; did you mean mqtt?'),
            (SOURCE.replace('"/s"', "'s'") + "verify = 'none'", '6: sources.s.path: must begin with "/"'),
            (SOURCE.replace('"/s"', "'/s?x=1'") + "verify = 'none'", "6: sources.s.path: holds a character that a route's path cannot have (query, fragment, %, spaces, braces)"),
            (SOURCE.replace('"/s"', "'/a/../s'") + "verify = 'none'", "6: sources.s.path: holds an empty, . or .. part"),
            (SOURCE.replace('"/s"', "'//s'") + "verify = 'none'", "6: sources.s.path: holds an empty, . or .. part"),
            (SOURCE.replace('"/s"', f"'/{'x' * 4096}'") + "verify = 'none'", "6: sources.s.path: must be at most 4096 characters"),
            (SOURCE.replace('"f"', "'f:a b'") + "verify = 'none'", "7: sources.s.function: a qualifier is $LATEST, a version's number or an alias"),
            (SOURCE.replace('"f"', "'f:'") + "verify = 'none'", "7: sources.s.function: a qualifier is $LATEST, a version's number or an alias"),
            (
                SOURCE,
                ('4: sources.s.verify: missing; name a scheme, such as { scheme = "github", secrets = [{ env = "NAME" }] }, '
                'or write verify = "none" to let anyone post'),
            ),
            (
                SOURCE + "verify = { scheme = 'githb', secrets = [{ env = 'S' }] }",
                ('8: sources.s.verify: must be { scheme = "...", secrets = [...] } with a scheme of standard-webhooks, github, '
                'stripe, slack, shopify, twilio, hmac, basic or bearer, or "sns" for what SNS signs, or "none" to let anyone post; did you mean github?'),
            ),
            (SOURCE + "verify = { scheme = 'github' }", "8: sources.s.verify.secrets: missing: Shared secrets; each is tried, so that a new one can be added before the old one goes"),
            (SOURCE + "verify = { scheme = 'github', secrets = [] }", "8: sources.s.verify.secrets: must have at least 1 item"),
            (SOURCE + "verify = { scheme = 'github', secrets = ['x'] }", '8: sources.s.verify.secrets[0]: a secret is not written into the file; write { env = "NAME" } or { file = "path" }'),
            (SOURCE + "verify = { scheme = 'github', secrets = ['${S}'] }", '8: sources.s.verify.secrets[0]: a secret is not written into the file; write { env = "NAME" } or { file = "path" }'),
            (SOURCE + "verify = { scheme = 'basic', secrets = [{ env = 'S' }] }", "8: sources.s.verify: a secret of scheme basic must be user:password"),
            (SOURCE + "verify = { scheme = 'standard-webhooks', secrets = [{ env = 'S' }] }", "8: sources.s.verify: a standard-webhooks secret "),
            (SOURCE + "verify = { scheme = 'twilio', secrets = [{ env = 'S' }], public_url = 'http://[::1' }", "8: sources.s.verify: "),
            (SOURCE + "verify = { scheme = 'none', secrets = [{ env = 'S' }] }", "8: sources.s.verify.secrets: must be left out"),
            # listeners
            ("listen = { public = '127.0.0.1:70000' }", "1: listen.public: the port must be 0..65535"),
            ("listen = { public = '127.0.0.1' }", "1: listen.public: must be host:port, such as 127.0.0.1:8580, 0.0.0.0:8580 or [::1]:8580"),
            ("listen = { public = ':8580' }", "1: listen.public: must be host:port, such as 127.0.0.1:8580, 0.0.0.0:8580 or [::1]:8580"),
            ("listen = { public = 8580 }", "1: listen.public: must be a string"),
            ("listen = { public = '300.1.1.1:80' }", "1: listen.public: not an IP address"),
            ("listen = { api = '0.0.0.0:8581' }", '1: listen.api: reachable from elsewhere: tls must be written, as { cert, key }, "upstream" or "off"'),
            ("listen = { public = '[::]:8580' }", '1: listen.public: reachable from elsewhere: tls must be written, as { cert, key }, "upstream" or "off"'),
            ("listen = { public = 'box.lan:8580' }", '1: listen.public: reachable from elsewhere: tls must be written, as { cert, key }, "upstream" or "off"'),
            ("listen = { api = '127.0.0.1:8580' }", "1: listen.api: the same address as listen.public"),
            ("listen = { tls = 'on' }", '1: listen.tls: must be "off", "upstream" or { cert = "path", key = "path" }'),
            ("listen = { tls = false }", '1: listen.tls: must be "off", "upstream" or { cert = "path", key = "path" }'),
            ("listen = { tls = { cert = 'code/app.py' } }", "1: listen.tls.key: missing: PEM file of the private key, without a passphrase"),
            ("listen = { tls = { cert = 'code/app.py', key = 'gone' } }", "1: listen.tls.key: no such file or directory"),
            ("listen = { tls = { cert = 'code/app.py', key = 'code/app.py' } }", "1: listen.tls: certificate and key are not a pair in PEM, or the key has a passphrase"),
            ("listen = { trusted_proxies = ['10.0.0.1/8'] }", "1: listen.trusted_proxies[0]: has bits beyond its mask; did you mean 10.0.0.0/8?"),
            ("listen = { trusted_proxies = ['*'] }", "1: listen.trusted_proxies[0]: must be an IP address or network, such as 10.0.0.0/8"),
            ("listen = { hosts = ['https://x'] }", "1: listen.hosts[0]: must be a host name without scheme, port or path, such as bridge.internal"),
            # folders
            ("[runtime]\npackages = 'gone'", "2: runtime.packages: no such folder: {folder}/gone"),
            ("[api]\ncode_folder = 'gone'", "2: api.code_folder: no such folder: {folder}/gone"),
            ("[api]\ncode_connection = 'gone'", '2: api.code_connection: no connection gone here; write [connections.X] with type = "aws"'),
            ("[logs]\nconnection = 'gone'", '2: logs.connection: no connection gone here; write [connections.X] with type = "aws"'),
            ("state = 'code/app.py'", "1: state: is not a folder"),
            # variables
            ("region = '${GONE}'", "1: region: ${GONE} is not set in the environment; set it or write ${GONE:-default}"),
            ("region = '${'", "1: region: ${ needs a name and a brace: ${X} or ${X:-default}; write $${ for a plain ${"),
            ("listen = { hosts = ['a', '${GONE}'] }", "1: listen.hosts[1]: ${GONE} is not set in the environment; set it or write ${GONE:-default}"),
        ],
    )  # fmt: skip
    def test_the_line(self, mistakes, folder, text, line):
        (mistake,) = mistakes(text, {"S": "secret", "EMPTY": ""})

        assert mistake.startswith("bridge.toml:" + line.replace("{folder}", str(folder)))

    def test_routes_that_clash(self, mistakes):
        text = (
            SOURCE
            + "verify = 'none'\n"
            + SOURCE.removeprefix(FUNCTION).replace("sources.s", "sources.t")
            + "verify = 'none'"
        )

        assert mistakes(text) == ["bridge.toml:11: sources.t.path: POST on this path is already the route of sources.s"]

    def test_routes_that_clash_in_one_method_only(self, mistakes):
        other = SOURCE.removeprefix(FUNCTION).replace("sources.s", "sources.t")
        text = (
            SOURCE
            + "verify = 'none'\nmethods = ['GET']\n"
            + other
            + "verify = 'none'\ninvocation_type = 'RequestResponse'"
        )

        assert mistakes(text) == ["bridge.toml:12: sources.t.path: GET on this path is already the route of sources.s"]

    def test_more_reserved_than_there_is(self, mistakes):
        text = "".join(
            FUNCTION.replace("functions.f", f"functions.f{n}") + "reserved_concurrency = 400\n" for n in range(3)
        )

        assert mistakes(text) == [
            ("bridge.toml:12: functions.f2.reserved_concurrency: brings what functions reserve to 1200; "
            "invocation.account_concurrency is 1000")
        ]  # fmt: skip


class TestAllAtOnce:
    """No mistake hides another, and none is told twice."""

    def test_in_the_order_of_the_file(self, mistakes):
        text = """\
stat = "x"
drain_grace_s = "25"

[functions.orders]
code = "gone"
handler = "app"
timeout_s = true

[sources.orders]
type = "webhook"
path = "orders"
function = "order"
batch_sise = 3
"""
        assert mistakes(text) == [
            "bridge.toml:1: stat: unknown key; did you mean state?",
            "bridge.toml:2: drain_grace_s: must be a number of seconds, not a string",
            "bridge.toml:5: functions.orders.code: no such folder: " + os.path.join(os.getcwd(), "gone"),
            "bridge.toml:6: functions.orders.handler: must be module.function, such as app.handler or folder/app.handler",
            "bridge.toml:7: functions.orders.timeout_s: must be a whole number of seconds, not a boolean",
            (
                'bridge.toml:9: sources.orders.verify: missing; name a scheme, such as { scheme = "github", secrets = '
                '[{ env = "NAME" }] }, or write verify = "none" to let anyone post'
            ),
            'bridge.toml:11: sources.orders.path: must begin with "/"',
            "bridge.toml:13: sources.orders.batch_sise: unknown key",
        ]

    def test_a_variable_that_is_not_set_is_the_only_mistake_of_its_string(self, mistakes):
        assert mistakes("listen = { public = '${HOST}:${PORT}' }") == [
            "bridge.toml:1: listen.public: ${HOST} is not set in the environment; set it or write ${HOST:-default}",
            "bridge.toml:1: listen.public: ${PORT} is not set in the environment; set it or write ${PORT:-default}",
        ]

    def test_a_bad_item_is_not_a_missing_one(self, mistakes):
        assert len(mistakes(SOURCE + "verify = { scheme = 'github', secrets = [3] }")) == 1

    def test_bounded(self, mistakes):
        found = mistakes("".join(f"x{n} = 1\n" for n in range(1000)))

        assert len(found) == MISTAKES_MAX + 1
        assert found[-1] == "... and 800 more"

    def test_levels_of_logs_that_are_text(self, mistakes):
        logging = "logging_config = { application_log_level = 'WARN', log_format = 'Text', log_group = 'a b' }\n"
        loc = "bridge.toml:4: functions.hello.logging_config"

        assert mistakes(GOOD + logging) == [
            f"{loc}.log_group: not a valid value: Name of the log group, 1..512 of a-z A-Z 0-9 . - _ / #; left out: /aws/lambda/NAME",
            f'{loc}.application_log_level: counts where log_format is "JSON"',
        ]

    def test_a_network_that_makes_no_sense(self, mistakes):
        loc = "bridge.toml:4: functions.hello"
        groups = "security_group_ids = ['sg-0a1b2c3d']"
        both = f"subnet_ids = ['subnet-0a1b2c3d'], {groups}"

        assert mistakes(GOOD + f"vpc_config = {{ {groups} }}\n") == [
            f"{loc}.vpc_config: subnet_ids and security_group_ids belong together: give both, or leave both empty"
        ]
        assert mistakes(GOOD + f"vpc_config = {{ subnet_ids = ['subnet-x'], {groups} }}\n") == [
            f"{loc}.vpc_config: 'subnet-x' is no id of a subnet: subnet- and 8 to 17 of 0-9 a-f"
        ]
        assert mistakes(GOOD + f"vpc_config = {{ {both.replace('sg-', '')} }}\n") == [
            f"{loc}.vpc_config: '0a1b2c3d' is no id of a security group: sg- and 8 to 17 of 0-9 a-f"
        ]
        assert mistakes(GOOD + "network = 'vpc'\n") == [f'{loc}.network: "vpc" is for functions with a vpc_config']
        assert mistakes(GOOD + f"network = 'none'\nvpc_config = {{ {both} }}\n") == [
            f'{loc}.network: "none" and a vpc_config exclude each other'
        ]

    def test_an_override_is_named_by_its_variable(self, mistakes):
        found = mistakes(GOOD, {"BRIDGE_PUBLIC": "nowhere", "BRIDGE_TLS": "on", "BRIDGE_STATE": "code/app.py"})

        assert found == [
            "BRIDGE_STATE: state: is not a folder",
            "BRIDGE_PUBLIC: listen.public: must be host:port, such as 127.0.0.1:8580, 0.0.0.0:8580 or [::1]:8580",
            'BRIDGE_TLS: listen.tls: must be "off", "upstream" or { cert = "path", key = "path" }',
        ]  # fmt: skip

    def test_no_traceback_is_dragged_along(self, folder, load_text):
        with pytest.raises(ConfigErrors) as caught:
            load_text("stat = 1")

        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None


def test_the_message_is_the_same_in_any_locale(folder):
    """LANG=C must not break a line that holds more than ASCII."""
    (folder / "bridge.toml").write_text('"é" = 1\n')
    code = "from bridge.config.load import load\ntry: load()\nexcept Exception as e: print(e)"
    environment = {"LANG": "C", "PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)

    assert done.stdout == b'bridge.toml:1: "\\u00e9": unknown key\n'
