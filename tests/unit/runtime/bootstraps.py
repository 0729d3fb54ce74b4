"""What tests write into a function's folder: its files; bootstraps of a shell, of what its events say, a compiled one."""

import os
from pathlib import Path

from bridge.runtime import environment

SHELL = """#!/bin/sh
echo "begun in $(pwd) for $_HANDLER"
API="http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime"
while true; do
  EVENT=$(curl -sS -D /tmp/head "$API/invocation/next")
  ID=$(grep -i '^Lambda-Runtime-Aws-Request-Id:' /tmp/head | tr -d '\\r' | cut -d ' ' -f 2)
  echo "event of $ID"
  case "$EVENT" in
    *fail*) curl -sS -o /dev/null -X POST "$API/invocation/$ID/error" -d '{"errorType":"No","errorMessage":"not so"}' \\
        -H 'Lambda-Runtime-Function-Error-Type: Function.No' ;;
    *leave*) exit 3 ;;
    *) curl -sS -o /dev/null -X POST "$API/invocation/$ID/response" -d "{\\"seen\\": $EVENT}" ;;
  esac
done
"""

TALKER = """#!{python} -I
import http.client, json, os, signal, socket, sys, time

os.environ["SEEN_BY"] = "talker"
host = os.environ["AWS_LAMBDA_RUNTIME_API"]
api = http.client.HTTPConnection(host)
BASE = "/2018-06-01/runtime"

def call(method, path, body=None, headers={{}}, encode_chunked=False):
    api.request(method, BASE + path, body, headers, encode_chunked=encode_chunked)
    answer = api.getresponse()
    return answer.status, answer.read(), answer.headers

def raw(data):
    with socket.create_connection(host.split(":")) as connection:
        connection.sendall(data)
        return connection.makefile("rb").read().decode()

exec(open("/var/task/init.py").read() if os.path.exists("/var/task/init.py") else "")
while True:
    _, body, headers = call("GET", "/invocation/next")
    event, request_id = json.loads(body), headers["Lambda-Runtime-Aws-Request-Id"]
    answer, answered = None, False
    def respond(body, headers={{}}, **options):
        return call("POST", f"/invocation/{{request_id}}/response", body, headers, **options)[:2]
    exec(event["code"])
    if not answered:
        respond(json.dumps(answer))
"""

COMPILED = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

/* One connection for all; answers and events are small. */
int main(void) {
  char text[65536], id[128], *host = getenv("AWS_LAMBDA_RUNTIME_API"), *colon = strchr(host, ':');
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(colon + 1))};
  inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
  int connection = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(connection, (struct sockaddr *)&address, sizeof address)) return 9;
  for (;;) {
    dprintf(connection, "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n");
    long got = read(connection, text, sizeof text - 1);
    if (got <= 0) return 8;
    text[got] = 0;
    sscanf(strstr(text, "Lambda-Runtime-Aws-Request-Id: "), "Lambda-Runtime-Aws-Request-Id: %127[^\r]", id);
    char *body = strstr(text, "\r\n\r\n") + 4;
    printf("compiled %s\n", body);
    fflush(stdout);
    if (strstr(body, "crash")) abort();
    dprintf(connection, "POST /2018-06-01/runtime/invocation/%s/response HTTP/1.1\r\nHost: x\r\n"
            "Content-Length: %zu\r\n\r\n%s", id, strlen(body), body);
    if (read(connection, text, sizeof text) <= 0) return 7;
  }
}
"""


def executable(folder: Path, text: str, name: str = "bootstrap") -> str:
    """Write a program and return the folder that it is in, as a function's code."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return os.fspath(folder)


def talker(folder: Path, *, init: str = "") -> str:
    """Write a bootstrap that runs the code of its events; `init` runs before it asks for the first."""
    code = executable(folder, TALKER.format(python=environment.interpreter()))
    if init:
        (folder / "init.py").write_text(init)
        (folder / "init.py").chmod(0o644)
    return code


def written(folder: Path, files: dict[str, str]) -> str:
    """Write a function's files and return its folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return str(folder)
