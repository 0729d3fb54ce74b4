"""What programs post to the Runtime API, as a worker's frames have it; child side, standard library only."""

import base64
import json
import os
import re
import signal
from typing import Any, Final

HTTP_ANSWER: Final = re.compile(
    rb"\r\ncontent-type:[ \t]*application/vnd\.awslambda\.http-integration-response", re.IGNORECASE
)
"""Of the head of a streamed HTTP answer."""
PRELUDE_END: Final = bytes(8)


def status_text(status: int) -> str:
    """Return how a process ended, of its wait status: `exit status 3`."""
    if os.WIFSIGNALED(status):
        return f"signal: {(signal.strsignal(os.WTERMSIG(status)) or 'unknown').lower()}"
    return f"exit status {os.waitstatus_to_exitcode(status)}"


def error(body: bytes, error_type: bytes) -> bytes:
    """Return a client's error as it is posted, or as an object where it is none."""
    try:
        if isinstance(json.loads(body), dict):
            return body
    except (ValueError, RecursionError):
        pass
    text = body.decode("utf-8", "replace")
    kind = error_type.decode("utf-8", "replace") or "Runtime.Unknown"
    return json.dumps({"errorMessage": text, "errorType": kind}).encode()


def decoded(text: bytes) -> bytes:
    """Return what base64 says, or the text where it is none."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return text


def whole_answer(body: bytes) -> bytes:
    """Return a streamed HTTP answer (a prelude, eight zeros, the body) as the object that is buffered in its place."""
    prelude, found, rest = body.partition(PRELUDE_END)
    try:
        answer: Any = json.loads(prelude) if found else None
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        return body
    try:
        answer["body"], answer["isBase64Encoded"] = rest.decode(), False
    except UnicodeDecodeError:
        answer["body"], answer["isBase64Encoded"] = base64.b64encode(rest).decode(), True
    return json.dumps(answer).encode()
