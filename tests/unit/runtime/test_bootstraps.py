"""Bootstraps of one's own (provided.*, go1.x) behind the Runtime API: what they are told, may say, and how they end."""

import asyncio
import base64
import json
import subprocess

import pytest

from bridge.core.invocation import ResultKind
from bridge.runtime.bootstrap import RESPONSE_MAX_BYTES
from tests.harness import wait_until
from tests.unit.runtime.bootstraps import COMPILED, SHELL, executable, talker

pytestmark = pytest.mark.asyncio(loop_scope="module")
NAME = "bootstrapped"
"""A name, and so a user id, of its own: a fork bomb of another test counts against that of `sample`."""
OWN = {"runtime": "provided.al2023", "name": NAME}


def body(result):
    assert result.is_ok, result
    return json.loads(result.payload)


async def say(runner, code, source, **fields):
    """Run Python source in the bootstrap that `talker` wrote; return the result."""
    return await runner.run("any", {"code": source}, code=code, **{**OWN, **fields})


async def test_a_shells_answers_errors_and_exit(runner, tmp_path):
    function = {"code": executable(tmp_path / "code", SHELL), **OWN}

    first = await runner.run("any.name", {"a": 1}, **function)
    assert body(first) == {"seen": {"a": 1}}
    assert first.init_ms is not None
    lines = first.log_tail.decode().splitlines()
    assert [line.split()[0] for line in lines] == ["START", "event", "END", "REPORT"]
    assert lines[1] == f"event of {lines[0].split()[2]}"

    second = await runner.run("any.name", "fail", **function)
    assert (second.kind, second.error_type, second.error_message) == (ResultKind.FUNCTION_ERROR, "No", "not so")
    assert second.init_ms is None
    left = await runner.run("any.name", "leave", **function)
    assert left.error_type == "Runtime.ExitError"
    assert left.error_message.endswith(" Error: Runtime exited with error: exit status 3")
    assert body(await runner.run("any.name", 2, **function)) == {"seen": 2}  # by a new one
    runner.logs.flush()
    text = b"".join(path.read_bytes() for path in (runner.logs._folder / NAME).iterdir()).decode()
    assert "begun in /" in text
    assert "for any.name" in text


async def test_a_compiled_one_and_its_abort(runner, tmp_path):
    code = tmp_path / "code"
    executable(code, COMPILED, "main.c")
    subprocess.run(["cc", "-O", "-o", code / "main", code / "main.c"], check=True)
    (code / "main").chmod(0o755)
    function = {"code": str(code), "runtime": "go1.x", "name": NAME}

    for event in ("one", "two"):
        assert body(await runner.run("main", event, **function)) == event
    ended = await runner.run("main", "crash", **function)
    assert ended.error_message.endswith(" Error: Runtime exited with error: signal: aborted")
    assert b'compiled "crash"\n' in ended.log_tail


async def test_an_answer_that_came_in_time_counts_though_its_program_hangs_then(runner, tmp_path):
    code = talker(tmp_path / "code")

    result = await say(runner, code, "respond('[1]')\nanswered = True\ntime.sleep(1000)", timeout_s=3)

    assert body(result) == [1]
    await wait_until(lambda: not runner.pool._workers, description="its worker has ended")
    assert body(await say(runner, code, "answer = 2")) == 2


async def test_what_it_is_told_of_an_invocation(runner, tmp_path, monkeypatch):
    monkeypatch.setattr(runner.pool, "trace", lambda request_id, name: f"Root=1-{request_id[:8]};Lineage={name}")
    code = talker(tmp_path / "code")
    invocation = runner.invocation(
        {"code": "answer = [dict(headers), time.time()]"}, client_context=b'{"custom":\n{"k": "\xc3\xa9"}}'
    )
    headers, now = body(await runner.run("any", invocation=invocation, code=code, timeout_s=300, **OWN))

    assert headers["Lambda-Runtime-Aws-Request-Id"] == invocation.request_id
    assert headers["Lambda-Runtime-Invoked-Function-Arn"] == invocation.invoked_arn
    assert headers["Content-Type"] == "application/json"
    assert headers["Lambda-Runtime-Trace-Id"] == f"Root=1-{invocation.request_id[:8]};Lineage={NAME}"
    assert json.loads(headers["Lambda-Runtime-Client-Context"].encode("latin-1")) == {"custom": {"k": "é"}}
    assert 0 < int(headers["Lambda-Runtime-Deadline-Ms"]) / 1000 - now <= 300


async def test_its_environment(runner, tmp_path):
    code = talker(tmp_path / "code")
    variables = {"STAGE": "test", "PYTHONPATH": "/mine", "LD_PRELOAD": ""}
    found = body(await say(runner, code, "answer = dict(os.environ)", environment=variables))

    assert found.pop("SEEN_BY") == "talker"
    assert found["AWS_LAMBDA_RUNTIME_API"].startswith("127.0.0.1:")
    assert "AWS_EXECUTION_ENV" not in found  # of no bootstrap of one's own
    assert {
        "_HANDLER": "any",
        "STAGE": "test",
        "PYTHONPATH": "/mine",
        "AWS_LAMBDA_FUNCTION_NAME": NAME,
    }.items() <= (found.items())
    assert found["LAMBDA_TASK_ROOT"] == body(await say(runner, code, "answer = os.getcwd()", environment=variables))


async def test_its_address_space_is_not_limited(runner, tmp_path):
    source = "import resource; answer = resource.getrlimit(resource.RLIMIT_AS) == (resource.RLIM_INFINITY,) * 2"
    assert body(await say(runner, talker(tmp_path / "code"), source)) is True


async def test_its_memory_is(runner, tmp_path):
    result = await say(runner, talker(tmp_path / "code"), "x = bytearray(300 << 20)\ntime.sleep(60)", memory_mb=128)

    assert result.error_message.endswith("signal: killed")


async def test_ids_and_states_that_are_wrong(runner, tmp_path):
    source = (
        "answer = [call('POST', '/invocation/none/response', '1')[:2], call('GET', '/invocation/next')[:2],"
        " call('POST', '/init/error', '{}')[:2], call('GET', '/restore/next')[:2], call('PUT', '/x', '1')[0]]\n"
        "answer = [[status, json.loads(body)['errorType']] for status, body in answer[:4]] + answer[4:]"
    )
    code = talker(tmp_path / "code")
    assert body(await say(runner, code, source)) == [
        [400, "InvalidRequestID"],
        [403, "InvalidStateTransition"],
        [403, "InvalidStateTransition"],
        [403, "NotSupported"],
        404,
    ]


async def test_an_answer_counts_once(runner, tmp_path):
    code = talker(tmp_path / "code")
    source = (
        "first = respond('1')\nsecond = respond('2')\nthird = call('POST', f'/invocation/{request_id}/error', '{}')[0]\n"
        "os.environ['SAID'] = repr([first, second[0], third])\nanswered = True"
    )
    assert body(await say(runner, code, source)) == 1
    said = body(await say(runner, code, "answer = os.environ['SAID']"))
    assert said == repr([(202, b'{"status":"OK"}\n'), 400, 400])


async def test_one_that_ends_after_its_answer_has_answered(runner, tmp_path):
    code = talker(tmp_path / "code")
    source = "respond('1')\nprint('after it', flush=True)\nos._exit(3)"
    first, second = await asyncio.gather(say(runner, code, source), say(runner, code, source))

    assert (body(first), body(second)) == (1, 1)
    assert b"after it\n" in first.log_tail
    assert body(await say(runner, code, "answer = 2")) == 2


@pytest.mark.parametrize("chars", [1, 1_000_000])
async def test_an_answer_on_a_connection_that_closes_comes_in_pieces(runner, tmp_path, chars):
    source = (
        "import urllib.request\n"  # closes each connection, and sends head and body apart
        "url = f'http://{host}{BASE}/invocation/{request_id}/response'\n"
        f"urllib.request.urlopen(urllib.request.Request(url, json.dumps('x' * {chars}).encode())).read()\nanswered = True"
    )
    code = talker(tmp_path / "code")
    assert body(await say(runner, code, source)) == "x" * chars
    assert body(await say(runner, code, "answer = os.getpid()")) == body(
        await say(runner, code, "answer = os.getpid()")
    )


async def test_answers_in_chunks(runner, tmp_path):
    code = talker(tmp_path / "code")
    source = (
        "respond(iter([b'[1,', b' ', b'2]']), {'Transfer-Encoding': 'chunked'}, encode_chunked=True)\nanswered = True"
    )
    assert (await say(runner, code, source)).payload == b"[1, 2]"
    big = "respond(iter([b'x' * 100_000] * 50), {'Transfer-Encoding': 'chunked'}, encode_chunked=True)\nanswered = True"
    assert (await say(runner, code, big)).payload == b"x" * 5_000_000


STREAM = (
    "raw(f'POST {{BASE}}/invocation/{{request_id}}/response HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n"
    "Lambda-Runtime-Function-Response-Mode: streaming\\r\\nTransfer-Encoding: chunked\\r\\n{headers}\\r\\n"
    "{chunks}0\\r\\n{trailers}\\r\\n'.encode())\nanswered = True"
)


async def test_an_error_in_the_middle_of_a_stream(runner, tmp_path):
    error = base64.b64encode(b'{"errorType": "Half", "errorMessage": "way"}').decode()
    trailers = (
        f"Lambda-Runtime-Function-Error-Type: Function.Half\\r\\nLambda-Runtime-Function-Error-Body: {error}\\r\\n"
    )
    source = STREAM.format(headers="", chunks="3\\r\\nabc\\r\\n", trailers=trailers)
    result = await say(runner, talker(tmp_path / "code"), source)

    assert (result.kind, result.error_type, result.error_message) == (ResultKind.FUNCTION_ERROR, "Half", "way")


async def test_a_streamed_http_answer_becomes_whole(runner, tmp_path):
    code = talker(tmp_path / "code")
    prelude = json.dumps({"statusCode": 201, "headers": {"a": "b"}})
    zeros = "\\0" * 8
    chunks = f"{len(prelude):x}\\r\\n{prelude.replace('{', '{{').replace('}', '}}')}\\r\\n8\\r\\n{zeros}\\r\\n2\\r\\nhi\\r\\n"
    headers = "Content-Type: application/vnd.awslambda.http-integration-response\\r\\n"
    source = STREAM.format(headers=headers, chunks=chunks, trailers="")

    assert body(await say(runner, code, source)) == {
        "statusCode": 201, "headers": {"a": "b"}, "body": "hi", "isBase64Encoded": False,
    }  # fmt: skip


async def test_too_large_an_answer(runner, tmp_path):
    code = talker(tmp_path / "code")
    source = f"os.environ['SAID'] = str(respond('x' * ({RESPONSE_MAX_BYTES} + 1))[0])\nanswered = True"
    result = await say(runner, code, source, memory_mb=256)

    assert result.error_type == "Function.ResponseSizeTooLarge"
    assert body(await say(runner, code, "answer = os.environ['SAID']", memory_mb=256)) == "413"
    largest = f"respond(b'x' * {RESPONSE_MAX_BYTES})\nanswered = True"
    assert len((await say(runner, code, largest, memory_mb=256)).payload) == RESPONSE_MAX_BYTES


async def test_a_large_event(runner, tmp_path):
    event = {"code": "answer = len(event['more'])", "more": "x" * 5_000_000}
    assert body(await runner.run("any", event, code=talker(tmp_path / "code"), memory_mb=256, **OWN)) == 5_000_000


async def test_a_client_that_waits_to_be_told_to_go_on(runner, tmp_path):
    source = (
        "answer = raw(f'POST {BASE}/invocation/{request_id}/response HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n"
        "Expect: 100-continue\\r\\nContent-Length: 2\\r\\n\\r\\n42'.encode()).split('\\r\\n')[0]\n"
        "os.environ['SAID'] = answer\nanswered = True"
    )
    code = talker(tmp_path / "code")
    assert body(await say(runner, code, source)) == 42
    assert body(await say(runner, code, "answer = os.environ['SAID']")) == "HTTP/1.1 100 Continue"


async def test_what_is_no_http_is_closed_and_the_rest_goes_on(runner, tmp_path):
    source = "answer = [raw(b'hello\\r\\n\\r\\n'), raw(b'GET / HTTP/1.1\\r\\n' + b'x' * 2_000_000)]"
    code = talker(tmp_path / "code")
    try_it = f"try:\n    {source}\nexcept OSError as error:\n    answer = ['', '']"  # closed while it was sending
    assert body(await say(runner, code, try_it)) == ["", ""]
    assert body(await say(runner, code, "answer = 1")) == 1


async def test_an_error_that_is_no_object(runner, tmp_path):
    source = "call('POST', f'/invocation/{request_id}/error', 'oh', {'Lambda-Runtime-Function-Error-Type': 'A.B'})\nanswered = True"
    result = await say(runner, talker(tmp_path / "code"), source)

    assert json.loads(result.payload) == {"errorMessage": "oh", "errorType": "A.B"}


async def test_an_init_that_is_told_as_failed_runs_again_and_is_the_answer(runner, tmp_path):
    code = talker(
        tmp_path / "code",
        init="print('trying', flush=True)\n"
        'call(\'POST\', \'/init/error\', \'{"errorType": "Init.No", "errorMessage": "not today"}\')\nsys.exit(1)',
    )
    result = await say(runner, code, "")

    assert json.loads(result.payload) == {"errorType": "Init.No", "errorMessage": "not today"}
    lines = result.log_tail.decode().splitlines()
    assert sum(line == "trying" for line in lines) == 1  # the second time; the first one is before START
    assert lines[-1].endswith("\tStatus: error\tError Type: Init.No\t")


async def test_a_bootstrap_that_ends_before_it_asks(runner, tmp_path):
    result = await say(runner, talker(tmp_path / "code", init="os.kill(os.getpid(), signal.SIGSEGV)"), "")

    assert result.error_type == "Runtime.ExitError"
    assert result.error_message.endswith(" Error: Runtime exited with error: signal: segmentation fault")


@pytest.mark.parametrize(
    ("runtime", "text", "reason"),
    [
        ("provided.al2", None, "Couldn't find valid bootstrap(s): [{root}/bootstrap /opt/bootstrap]"),
        ("provided", "no program", "fork/exec {root}/bootstrap: exec format error"),
        ("provided", "#!/nowhere/to/be/found\n", "fork/exec {root}/bootstrap: no such file or directory"),
        ("go1.x", None, "fork/exec {root}/any: no such file or directory"),
    ],
)
async def test_a_bootstrap_that_cannot_be_started(runner, tmp_path, runtime, text, reason):
    code = tmp_path / "code"
    code.mkdir()
    code.chmod(0o755)
    if text is not None:
        executable(code, text)
    invocation = runner.invocation()
    result = await runner.run("any", invocation=invocation, code=str(code), runtime=runtime, name=NAME)

    root = "/var/task" if runner.pool._starter._mounts else str(code)
    text = f"RequestId: {invocation.request_id} Error: {reason.format(root=root)}"
    assert json.loads(result.payload) == {"errorType": "Runtime.InvalidEntrypoint", "errorMessage": text}
    assert f"{text}\nRuntime.InvalidEntrypoint\n" in result.log_tail.decode()


async def test_a_bootstrap_in_a_layer(runner, tmp_path):
    if not runner.pool._starter._opt:
        pytest.skip("layers at /opt (needs root, or user namespaces)")
    (tmp_path / "code").mkdir()
    opt = talker(tmp_path / "opt")
    result = await say(runner, str(tmp_path / "code"), "answer = sys.argv[0]", opt=opt)

    assert body(result) == "/opt/bootstrap"


async def test_the_timeout_ends_it_and_what_it_started(runner, tmp_path):
    source = "import subprocess; subprocess.Popen(['sleep', '1000']); time.sleep(1000)"
    result = await say(runner, talker(tmp_path / "code"), source, timeout_s=1)

    assert result.error_type == "Sandbox.Timedout"


async def test_only_its_own_processes_reach_its_port(runner, tmp_path):
    if not runner.pool._starter._process_namespaces:
        pytest.skip("processes of workers told apart (needs root, or user namespaces)")
    code = talker(tmp_path / "code")
    source = "open('/tmp/port', 'w').write(host); answer = host\nwhile {wait} and not os.path.exists('/tmp/go'): time.sleep(0.01)"
    port = body(await say(runner, code, source.format(wait=False))).split(":")[1]

    def ask_from_outside() -> bytes:
        import socket

        with socket.create_connection(("127.0.0.1", int(port))) as connection:
            try:
                connection.sendall(b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\n\r\n")
                return connection.recv(100)
            except OSError:
                return b""

    assert await asyncio.to_thread(ask_from_outside) == b""
    other = "import urllib.request\ntry:\n    answer = raw(b'GET / HTTP/1.1\\r\\nConnection: close\\r\\n\\r\\n')\nexcept OSError:\n    answer = ''"
    other = f"host = '127.0.0.1:{port}'\n{other}"
    assert body(await say(runner, code, other, name="other")) == ""  # nor another function's worker
    assert body(await say(runner, code, "answer = raw(b'GET / HTTP/1.1\\r\\nConnection: close\\r\\n\\r\\n')[:12]")) == (
        "HTTP/1.1 404"
    )


async def test_many_one_after_the_other_and_at_once(runner, tmp_path):
    code = talker(tmp_path / "code")

    async def one(number: int) -> None:
        assert body(await say(runner, code, f"print({number}, flush=True)\nanswer = {number}")) == number

    await asyncio.gather(*(one(number) for number in range(200)))
