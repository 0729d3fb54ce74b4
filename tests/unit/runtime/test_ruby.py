"""Ruby functions by our own client: what a handler may be, what it sees, how it ends, and what is in its log."""

import json
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from bridge.core.invocation import ResultKind
from bridge.core.limits import LOG_TAIL_MAX_BYTES
from bridge.registry.installed import RUBY, program
from tests.tools import needed
from tests.unit.runtime.bootstraps import written
from tests.unit.runtime.conftest import Runner, own_pool

pytestmark = pytest.mark.asyncio(loop_scope="module")
NAME = "ruby-function"


class Rubies:
    """Invokes handlers that a test writes, on one pool."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner

    async def run(self, code, event=None, handler="app.handler", **fields):
        interpreter = program(RUBY, needed("ruby", package="ruby"))
        values = {"runtime": "ruby3.3", "interpreter": interpreter, "name": NAME, "memory_mb": 256, **fields}
        return await self.runner.run(handler, event, code=code, **values)

    async def value(self, *args, **fields):
        result = await self.run(*args, **fields)
        assert result.is_ok, result
        return json.loads(result.payload)

    async def error(self, *args, **fields):
        result = await self.run(*args, **fields)
        assert result.kind is ResultKind.FUNCTION_ERROR, result
        return json.loads(result.payload)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_rubies(tmp_path_factory) -> AsyncIterator[Rubies]:
    ruby = program(RUBY, needed("ruby", package="ruby"))
    async with own_pool(tmp_path_factory.mktemp("ruby"), workers_max=4, interpreters=[ruby]) as runner:
        yield Rubies(runner)


@pytest_asyncio.fixture(loop_scope="module")
async def rubies(shared_rubies) -> AsyncIterator[Rubies]:
    yield shared_rubies
    await shared_rubies.runner.clear()


HANDLERS = """
def handler(event:, context:)
  { event: event }
end

def act(event:, context:) = send(event["act"], event: event, context: context)
def nothing(event:, context:) = nil
def text(event:, context:) = "h\\u00e9 \\u2028"
def io(event:, context:) = StringIO.new("as it is")
def fetched(event:, context:) = Net::HTTP.name + URI("http://x/").host

module Deep
  class Inner
    def self.go(event:, context:) = "deep #{event}"
  end
end

def seen(event:, context:)
  names = %i[aws_request_id function_name function_version invoked_function_arn memory_limit_in_mb log_group_name
             log_stream_name client_context identity tenant_id]
  names.to_h { |name| [name, context.public_send(name)] }.merge(
    left: context.get_remaining_time_in_millis, trace: ENV["_X_AMZN_TRACE_ID"], known_as: context.class.name,
  )
end

def environment(event:, context:) = ENV.to_h.merge(cwd: Dir.pwd, program: RbConfig.ruby, dirs: Gem.path)

class Mine < StandardError; end

def raises(event:, context:) = raise(Mine, "no\\nway \\u00e9")
def raises_argument(event:, context:) = raise(ArgumentError, "not so")
def not_json(event:, context:) = Float::NAN
def leaves(event:, context:) = exit(4)
def leaves_at_once(event:, context:) = exit!(4)
def killed(event:, context:) = Process.kill(:KILL, Process.pid) && sleep
def calls_nobody(event:, context:) = nobody_at_all
def recurses(event:, context:) = recurses(event: event, context: context)
def pid(event:, context:) = Process.pid

def logs(event:, context:)
  puts "one", ["two", 3]
  print "raw\\n"
  warn "to stderr"
  logger = Logger.new($stdout)
  logger.info("informed")
  logger.warn("app") { "of a\\nblock" }
  $stdout.puts "not\\nas one"
  puts
end
"""


async def test_the_ways_to_answer(rubies, tmp_path):
    code = written(tmp_path / "code", {"app.rb": HANDLERS})
    assert await rubies.value(code, {"a": [1, "é"]}) == {"event": {"a": [1, "é"]}}
    assert await rubies.value(code, "x" * 5_000_000) == {"event": "x" * 5_000_000}
    assert await rubies.value(code, "x", "app.Deep::Inner.go") == "deep x"
    assert await rubies.value(code, {"act": "nothing"}, "app.act") is None
    assert await rubies.value(code, {"act": "fetched"}, "app.act") == "Net::HTTPx"
    assert (await rubies.run(code, {"act": "text"}, "app.act")).payload == '"h\u00e9 \u2028"'.encode()
    assert (await rubies.run(code, {"act": "io"}, "app.act")).payload == b"as it is"


async def test_the_context(rubies, tmp_path, monkeypatch):
    monkeypatch.setattr(rubies.runner.pool, "trace", lambda request_id, name: "Root=1-abc")
    code = written(tmp_path / "code", {"app.rb": HANDLERS})
    invocation = rubies.runner.invocation({}, client_context=b'{"custom": {"k": "\xc3\xa9"}}')
    result = await rubies.run(code, handler="app.seen", invocation=invocation, timeout_s=300)
    seen = json.loads(result.payload)

    assert 0 < seen.pop("left") <= 300_000
    assert seen == {
        "aws_request_id": invocation.request_id,
        "function_name": NAME,
        "function_version": "$LATEST",
        "invoked_function_arn": invocation.invoked_arn,
        "memory_limit_in_mb": "256",
        "log_group_name": f"/aws/lambda/{NAME}",
        "log_stream_name": result.log_stream,
        "client_context": {"custom": {"k": "é"}},
        "identity": None,
        "tenant_id": None,
        "trace": "Root=1-abc",
        "known_as": "LambdaContext",
    }


async def test_the_environment_and_layers(rubies, tmp_path):
    code = written(tmp_path / "code", {"app.rb": HANDLERS})
    found = await rubies.value(code, {}, "app.environment", environment={"STAGE": "test"})
    root, version = found["LAMBDA_TASK_ROOT"], program(RUBY, needed("ruby", package="ruby")).version
    own = f"{version.rpartition('.')[0]}.0"
    assert (found["STAGE"], found["_HANDLER"], found["cwd"]) == ("test", "app.environment", root)
    assert found["AWS_EXECUTION_ENV"] == "AWS_Lambda_ruby3.3"
    assert found["RUBYLIB"] == f"{root}:/opt/ruby/lib"
    layers = list(dict.fromkeys(("/opt/ruby/gems/3.3.0", f"/opt/ruby/gems/{own}")))
    assert found["GEM_PATH"].split(":")[-len(layers) :] == layers
    assert set(found["GEM_PATH"].split(":")) <= set(found["dirs"])

    gem = "ruby/gems/3.3.0/gems/shared-1.0/lib/shared.rb"
    specification = (
        'Gem::Specification.new { |s| s.name = "shared"; s.version = "1.0"; s.summary = "s"; s.authors = ["a"] }'
    )
    opt = written(
        tmp_path / "opt",
        {
            gem: "WORD = 'of a gem'",
            "ruby/gems/3.3.0/specifications/shared-1.0.gemspec": specification,
            "ruby/lib/plain.rb": "OTHER = 'of a layer'",
        },
    )
    asks = 'require "shared"\nrequire "plain"\ndef handler(event:, context:) = [WORD, OTHER]\n'
    assert await rubies.value(written(tmp_path / "asks", {"app.rb": asks}), {}, opt=opt) == ["of a gem", "of a layer"]


async def test_files_beside_it_and_in_folders(rubies, tmp_path):
    files = {
        "src/app.rb": 'require "helper"\nrequire_relative "near"\ndef handler(event:, context:) = [HELP, NEAR]\n',
        "src/near.rb": "NEAR = 1\n",
        "helper.rb": "HELP = 2\n",
    }
    assert await rubies.value(written(tmp_path / "code", files), {}, "src/app.handler") == [2, 1]


@pytest.mark.parametrize(
    ("text", "handler", "kind", "message"),
    [
        (None, "app.handler", "Init<LoadError>", "cannot load such file -- app"),
        ("require 'gone'", "app.handler", "Init<LoadError>", "cannot load such file -- gone"),
        ("def handler(", "app.handler", "Init<SyntaxError>", "/app.rb:1: syntax error"),
        ("raise IndexError, 'at init'", "app.handler", "Init<IndexError>", "at init"),
        (HANDLERS, "app", "Init<ArgumentError>", 'Invalid handler ["app"], must be of form FILENAME.METHOD'),
        (HANDLERS, "app.a.b.c", "Init<ArgumentError>", "Invalid handler "),
        (HANDLERS, "app.gone", "Function<NoMethodError>", "undefined method `gone'"),
        (HANDLERS, "app.Gone.go", "Function<NameError>", "uninitialized constant Kernel::Gone"),
    ],
    ids=["no file", "no library", "syntax", "raises", "no dot", "many dots", "no method", "no class"],
)
async def test_what_cannot_be_loaded_or_called(rubies, tmp_path, text, handler, kind, message):
    (tmp_path / "code").mkdir()
    files = {} if text is None else {"app.rb": text}
    result = await rubies.run(written(tmp_path / "code", files), {}, handler)
    error = json.loads(result.payload)

    assert error["errorType"] == kind
    if kind not in {"Init<SyntaxError>", "Function<NoMethodError>"}:  # Ruby words them anew now and then
        assert message in error["errorMessage"]
    assert f'"errorType": "{kind}"'.encode() in result.log_tail


async def test_errors_and_their_log(rubies, tmp_path):
    code = written(tmp_path / "code", {"app.rb": HANDLERS})
    process = await rubies.value(code, {"act": "pid"}, "app.act")
    result = await rubies.run(code, {"act": "raises"}, "app.act")
    error = json.loads(result.payload)
    assert (error["errorType"], error["errorMessage"]) == ("Function<Mine>", "no\nway é")
    assert re.fullmatch(r".*/app\.rb:\d+:in [`'](Object#)?raises'", error["stackTrace"][0])
    assert all("/app.rb:" in line for line in error["stackTrace"])
    lines = result.log_tail.decode().split("\n")
    assert json.loads(lines[lines.index("Error raised from handler method") + 1]) == error
    other = await rubies.error(code, {"act": "raises_argument"}, "app.act")
    assert (other["errorType"], other["errorMessage"]) == ("Function<ArgumentError>", "not so")
    kind = (await rubies.error(code, {"act": "not_json"}, "app.act"))["errorType"]
    assert kind == "Function<JSON::GeneratorError>"
    assert await rubies.value(code, {"act": "pid"}, "app.act") == process  # none of them ended it


@pytest.mark.parametrize(
    ("act", "kind"),
    [
        ("leaves", "Function<SystemExit>"),
        ("calls_nobody", "Function<NameError>"),
        ("recurses", "Function<SystemStackError>"),
    ],
)
async def test_a_critical_exception_ends_the_process(rubies, tmp_path, act, kind):
    code = written(tmp_path / "code", {"app.rb": HANDLERS})
    result = await rubies.run(code, {"act": act}, "app.act")

    assert json.loads(result.payload)["errorType"] == kind
    assert b"Critical exception from handler\n" in result.log_tail or len(result.log_tail) == LOG_TAIL_MAX_BYTES
    again = await rubies.run(code, {"act": "nothing"}, "app.act")
    assert again.is_ok
    assert again.init_ms is not None  # by a new one


async def test_one_that_ends_without_an_answer(rubies, tmp_path):
    code = written(tmp_path / "code", {"app.rb": HANDLERS})
    left = await rubies.error(code, {"act": "leaves_at_once"}, "app.act")
    assert left["errorType"] == "Runtime.ExitError"
    assert left["errorMessage"].endswith("exit status 4")
    killed = await rubies.error(code, {"act": "killed"}, "app.act")
    assert killed["errorMessage"].endswith("signal: killed")
    assert await rubies.value(code, {"act": "nothing"}, "app.act") is None


async def test_lines_of_the_log(rubies, tmp_path):
    code = written(tmp_path / "code", {"app.rb": HANDLERS})
    invocation = rubies.runner.invocation({})
    result = await rubies.run(code, handler="app.logs", invocation=invocation)
    lines = [re.sub(r"\[[^]]+#\d+\]", "[TIME #PID]", line) for line in result.log_tail.decode().split("\n")]

    for expected in (
        "one\rtwo\r3", "raw", "to stderr", f"I, [TIME #PID]  INFO {invocation.request_id} -- : informed",
        f"W, [TIME #PID]  WARN {invocation.request_id} -- app: of a\rblock", "not", "as one",
    ):  # fmt: skip
        assert expected in lines, lines


async def test_events_and_answers_in_a_way_of_its_own(rubies, tmp_path):
    own = """
        class AwsLambda::Marshaller
          class << self
            def marshall_request(request) = request["Content-Type"] + " " + request.body
            def marshall_response(answer) = "<#{answer}>"
          end
        end
        def handler(event:, context:) = event
    """
    code = written(tmp_path / "code", {"app.rb": own})
    assert (await rubies.run(code, {"a": 1})).payload == b'<application/json {"a": 1}>'


async def test_a_wrapper_starts_it(rubies, tmp_path):
    code = written(tmp_path / "code", {"app.rb": "def handler(event:, context:) = ENV['WRAPPED']\n"})
    wrapper = tmp_path / "code" / "wrapper"
    wrapper.write_text('#!/bin/sh\nWRAPPED=yes exec "$@"\n')
    wrapper.chmod(0o755)
    variables = {"AWS_LAMBDA_EXEC_WRAPPER": "/var/task/wrapper"}
    assert await rubies.value(code, {}, environment=variables) == "yes"
