"""Functions that attack their worker and the daemon from behind the Runtime API: one of Node.js, one compiled.

An event is the name of an attack, or a list of that and a number. What ends by itself answers with a list.
"""

import subprocess
from pathlib import Path

from tests.unit.runtime.bootstraps import executable

NODE = r"""
const fs = require("fs");
const { spawn } = require("child_process");
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const attempted = (step) => { try { return [step() ?? 0, 0]; } catch (error) { return [-1, error.errno ? -error.errno : -1]; } };

const ATTACKS = {
  echo: (number) => [number],
  spin: () => /^(a+)+$/.test("a".repeat(50) + "b"),
  ignore_term: async () => { process.on("SIGTERM", () => {}); await pause(60000); },
  double_fork: async (number) => {
    spawn("sh", ["-c", `(setsid sleep ${number} &) ; sleep ${number}`], { detached: true, stdio: "ignore" }).unref();
    await pause(60000);
  },
  fork_bomb: async () => { spawn("sh", ["-c", "while :; do sleep 60 & done"], { stdio: "ignore" }); await pause(60000); },
  eat_memory: async () => { for (const held = []; ; await pause(10)) held.push(Buffer.alloc(16 << 20, 1)); },
  fill_tmp: () => {
    const file = fs.openSync("/tmp/full", "w"), piece = Buffer.alloc(4 << 20);
    let size = 0;
    try { while (size < 600 << 20) size += fs.writeSync(file, piece); } catch (error) { return [size, -error.errno]; }
    return [size, 0];
  },
  print_much: async (megabytes) => {
    const text = ("x".repeat(1023) + "\n").repeat(1024);
    for (let count = 0; count < megabytes; count += 1) await new Promise((done) => process.stdout.write(text, done));
    return [megabytes];
  },
  garbage: () => { fs.writeSync(1, Buffer.from([...Array(1024).keys()].map((n) => n & 255))); return [1]; },
  reach: (pid) => [attempted(() => fs.openSync(`/proc/${pid}/mem`, "r"))[0], attempted(() => process.kill(pid, 0))[0]],
};

exports.handler = async (event) => {
  const [name, number] = [event].flat();
  return ATTACKS[name](number);
};
"""

NATIVE = r"""
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/ptrace.h>
#include <sys/socket.h>

static char piece[4 << 20];

static void write_much(long megabytes) {
  memset(piece, 'x', 1 << 20);
  for (long at = 1023; at < 1 << 20; at += 1024) piece[at] = '\n';
  while (megabytes-- > 0)
    for (long done = 0, got; done < 1 << 20; done += got > 0 ? got : 0) got = write(1, piece + done, (1 << 20) - done);
}

static void fill(char *answer) {
  int file = open("/tmp/full", O_CREAT | O_WRONLY, 0600);
  long size = 0, got = 0;
  while (size < 600L << 20 && (got = write(file, piece, sizeof piece)) > 0) size += got;
  sprintf(answer, "[%ld, %d]", size, got > 0 ? 0 : errno);
}

static void double_fork(long number) {
  char text[32];
  sprintf(text, "%ld", number);
  if (!fork()) {
    setsid();
    if (!fork()) { setsid(); execlp("sleep", "sleep", text, (char *)0); }
    _exit(0);
  }
  sleep(60);
}

static void reach(long pid, char *answer) {
  char path[64];
  sprintf(path, "/proc/%ld/mem", pid);
  sprintf(answer, "[%d, %d, %ld]", open(path, O_RDONLY), kill(pid, 0), ptrace(PTRACE_ATTACH, (pid_t)pid, 0, 0));
}

static void attack(const char *name, long number, char *answer) {
  sprintf(answer, "[%ld]", number);
  if (!strcmp(name, "spin")) for (;;);
  if (!strcmp(name, "ignore_term")) { signal(SIGTERM, SIG_IGN); for (;;) sleep(60); }
  if (!strcmp(name, "double_fork")) double_fork(number);
  if (!strcmp(name, "fork_bomb")) for (;;) if (fork() < 0) sleep(1);
  if (!strcmp(name, "eat_memory")) for (;;) { memset(malloc(16 << 20), 1, 16 << 20); usleep(10000); }
  if (!strcmp(name, "fill_tmp")) fill(answer);
  if (!strcmp(name, "print_much")) write_much(number);
  if (!strcmp(name, "garbage")) { for (int n = 0; n < 1024; n++) piece[n] = (char)n; sprintf(answer, "[%d]", write(1, piece, 1024) == 1024); }
  if (!strcmp(name, "reach")) reach(number, answer);
}

int main(void) {
  char text[65536], id[128], name[64], answer[128], *host = getenv("AWS_LAMBDA_RUNTIME_API"), *colon = strchr(host, ':');
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(colon + 1))};
  inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
  int connection = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(connection, (struct sockaddr *)&address, sizeof address)) return 9;
  for (;;) {
    long number = 0;
    dprintf(connection, "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n");
    long got = read(connection, text, sizeof text - 1);
    if (got <= 0) return 8;
    text[got] = 0;
    sscanf(strstr(text, "Lambda-Runtime-Aws-Request-Id: "), "Lambda-Runtime-Aws-Request-Id: %127[^\r]", id);
    sscanf(strstr(text, "\r\n\r\n"), "\r\n\r\n%*[[\"]%63[a-z_]\", %ld", name, &number);
    attack(name, number, answer);
    dprintf(connection, "POST /2018-06-01/runtime/invocation/%s/response HTTP/1.1\r\nHost: x\r\n"
            "Content-Length: %zu\r\n\r\n%s", id, strlen(answer), answer);
    if (read(connection, text, sizeof text) <= 0) return 7;
  }
}
"""


def node(folder: Path) -> str:
    """Write the one of Node.js and return its folder."""
    return executable(folder, NODE, "index.js")


def native(folder: Path) -> str:
    """Compile the native one and return its folder."""
    code = executable(folder, NATIVE, "main.c")
    subprocess.run(["cc", "-O", "-w", "-o", folder / "bootstrap", folder / "main.c"], check=True)
    (folder / "bootstrap").chmod(0o755)
    return code
