import decimal
import json
import logging
import os
import sys
import time

loaded_at = time.time()
calls = 0
logger = logging.getLogger("app")


def echo(event, context):
    return event


def count(event, context):
    global calls
    calls += 1
    return {"calls": calls, "pid": os.getpid(), "loaded_at": loaded_at}


def who(event, context):
    return {
        "file": __file__,
        "folder": os.getcwd(),
        "path": sys.path,
        "user": os.getuid(),
        "environment": dict(os.environ),
        "foreign": [name for name in sys.modules if name.split(".")[0] in ("bridge", "orjson", "structlog")],
        "umask": os.umask(0o077),
    }


def context(event, context):
    return {
        "aws_request_id": context.aws_request_id,
        "function_name": context.function_name,
        "function_version": context.function_version,
        "invoked_function_arn": context.invoked_function_arn,
        "memory_limit_in_mb": context.memory_limit_in_mb,
        "log_group_name": context.log_group_name,
        "log_stream_name": context.log_stream_name,
        "remaining": context.get_remaining_time_in_millis(),
        "identity": [context.identity.cognito_identity_id, context.identity.cognito_identity_pool_id],
        "custom": context.client_context and context.client_context.custom,
        "client": context.client_context and context.client_context.client.app_title,
        "tenant_id": context.tenant_id,
        "text": repr(context),
    }


def fail(event, context):
    raise ValueError(event)


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("no words")


def fail_unspeakably(event, context):
    raise Unspeakable


def fail_at_length(event, context):
    raise ValueError("x" * 1_000_000)


def result(event, context):
    return {
        "none": None,
        "nan": float("nan"),
        "bytes": b"\x00raw",
        "set": {1},
        "decimal": {"n": decimal.Decimal("1.50")},
        "big": 2**70,
        "generator": (x for x in range(3)),
        "text": "é",
        "surrogate": "\ud800",
        "circle": circle(),
        "deep": deep(),
    }[event]


def circle():
    value = []
    value.append(value)
    return value


def deep():
    value = []
    for _ in range(100_000):
        value = [value]
    return value


async def coroutine(event, context):
    return 1


def oversize(event, context):
    return "x" * event


def leave(event, context):
    sys.exit(event)


def leave_hard(event, context):
    os._exit(event)


def interrupt(event, context):
    raise KeyboardInterrupt


def signal_self(event, context):
    os.kill(os.getpid(), event)
    time.sleep(10)


def sleep(event, context):
    time.sleep(event)
    return "slept"


def speak(event, context):
    print("on stdout")
    print("on stderr", file=sys.stderr)
    os.write(1, b"on descriptor 1\n")
    logging.warning("a warning")
    logging.info("below the level")
    logger.error("an error")
    context.log("by the context\n")
    os.system("echo from a child")
    import ctypes

    ctypes.CDLL(None).printf(b"from C\n")
    print("no newline", end="")


def speak_id(event, context):
    print("I am", context.aws_request_id)
    return context.aws_request_id


def keep_file(event, context):
    names = os.listdir(tmp())
    open(os.path.join(tmp(), event), "w").close()
    return names


def keep_file_and_hang(event, context):
    open(os.path.join(tmp(), event), "w").close()
    time.sleep(30)


def tmp():
    return os.environ.get("TMPDIR", "/tmp")


def run(event, context):
    """Whatever the test wants to know."""
    scope = {"event": event, "context": context}
    exec(event["code"], scope)
    return json.loads(json.dumps(scope.get("answer")))
