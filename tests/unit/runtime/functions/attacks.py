import os
import re
import signal
import subprocess
import sys
import time


def spin(event, context):
    while True:
        pass


def spin_in_c(event, context):
    re.match(r"(a+)+$", "a" * 40 + "b")


def ignore_term(event, context):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(30)


def double_fork(event, context):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setsid()
            subprocess.Popen(["sleep", event], start_new_session=True)
            time.sleep(30)
        os._exit(0)
    os.wait()
    time.sleep(30)


def fork_bomb(event, context):
    while True:
        try:
            os.fork()
        except OSError:
            time.sleep(1)  # at its limit: a thousand processes that spin would starve the machine that tests


def spinning_bomb(event, context):
    """Doubles without a pause, up to `event` processes in all if it is a number, and spins."""
    generations = event.bit_length() - 1 if event else 1 << 30
    for _ in range(generations):
        try:
            os.fork()
        except OSError:
            break
    while True:
        pass


def multiply(event, context):
    """Starts `event` processes that sleep; and in the background, if the event is negative."""
    if event < 0 and os.fork():
        return os.getpid()
    if event < 0:
        time.sleep(0.3)
    for _ in range(abs(event)):
        if os.fork() == 0:
            break
    time.sleep(60)


def eat_memory(event, context):
    held = []
    while True:
        held.append(bytearray(16 << 20))
        time.sleep(0.02)


def eat_memory_in_children(event, context):
    for _ in range(4):
        if os.fork() == 0:
            held = b"x" * (60 << 20)
            time.sleep(30)
    time.sleep(30)


def open_files(event, context):
    held = []
    try:
        while True:
            held.append(open("/dev/null"))
    except OSError as error:
        return [len(held), error.errno]


def fill_tmp(event, context):
    folder = os.environ.get("TMPDIR", "/tmp")
    size = 0
    try:
        with open(f"{folder}/full", "wb", buffering=0) as file:
            while size < event:
                size += file.write(b"\0" * (4 << 20))
    except OSError as error:
        return [size, error.errno]
    return [size, 0]


def print_much(event, context):
    line = "x" * 1023 + "\n"
    for _ in range(event):
        sys.stdout.write(line * 1024)
    return "printed"


def garble(event, context):
    os.write(1000, b"\xff" * 64)
    time.sleep(30)


def close_socket(event, context):
    os.close(1000)
    return "done"


def answer_wrongly(event, context):
    import struct

    os.write(1000, struct.pack("=IBIdI", 17, 4, 99999, 0.0, 0))
    time.sleep(30)


def answer_in_no_time(event, context):
    import struct

    os.write(1000, struct.pack("=IBIdI", 17 + 1, 4, 1, float("nan"), 0) + b"1")
    time.sleep(30)
