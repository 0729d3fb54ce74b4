"""The Apache Kafka that requirements/kafka.sh has brought: where it is, how it is run, and what is made of it once."""

import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

from tests.harness import ROOT, wait_for

HOW_TO_GET_IT = "requirements/kafka.sh .venv/share/kafka brings it; BRIDGE_TEST_KAFKA=host:port names another broker"
STARTED = "Kafka Server started"
CLUSTER = "bridge-tests-kafka-1aa"
PREPARE_MAX_S = 90.0
JVM = (
    "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Xlog:disable",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
)  # fmt: skip


def installed() -> Path | None:
    """Return the folder that requirements/kafka.sh has filled; None without it, or without Java."""
    for prefix in (Path(sys.prefix), ROOT / ".venv"):
        folder = prefix / "share" / "kafka"
        if (folder / "jars").is_dir() and shutil.which("java"):
            return folder
    return None


def home() -> Path:
    """As `installed`; fails with what to do."""
    folder = installed()
    assert folder is not None, f"Apache Kafka is not installed: {HOW_TO_GET_IT}"
    return folder


def java(*options: str) -> list[str]:
    """Return the command line of a JVM with Kafka's classes, without the class to run."""
    jars = ":".join(sorted(str(jar) for jar in (home() / "jars").glob("*.jar")))
    return ["java", *JVM, *options, "-cp", jars]


def server(file: Path) -> list[str]:
    """Return the command line of a node with the settings of `file`; a JVM that the archive does not fit goes without."""
    return [*java(f"-XX:SharedArchiveFile={_prepared() / 'classes.jsa'}"), "kafka.Kafka", str(file)]


def format_storage(folder: Path) -> None:
    """Make `folder` the empty storage of node 1."""
    shutil.copytree(_prepared() / "formatted", folder)


def is_prepared() -> bool:
    """Say whether the first start will not have to wait for `prepare`."""
    return (home() / f"prepared-{_key()}").exists()


def prepare(file: Path, data: Path, users: list[str]) -> None:
    """Format storage with `users` of SCRAM, and learn which classes a node loads, so that starts take half the time.

    Done once for a Java, in some 6 s; `file` has the settings of a node whose data folder is `data`.
    """
    folder = home()
    with (folder / "prepare.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_prepared():
            return
        for old in folder.glob("prepared-*"):
            shutil.rmtree(old)
        work = folder / "preparing"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        scram = [f"--add-scram={user}" for user in users]
        storage = ["kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", str(file), *scram]
        subprocess.run([*java(), *storage], check=True, stdout=subprocess.DEVNULL, timeout=PREPARE_MAX_S)
        shutil.copytree(data, work / "formatted")
        _learn(file, work)
        work.rename(folder / f"prepared-{_key()}")


def _learn(file: Path, work: Path) -> None:
    log = work / "kafka.log"
    with log.open("wb") as output:
        command = [*java(f"-XX:ArchiveClassesAtExit={work / 'classes.jsa'}"), "kafka.Kafka", str(file)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: STARTED in log.read_text(errors="replace"), PREPARE_MAX_S, "Kafka has started")
        process.terminate()
        process.wait(PREPARE_MAX_S)
    finally:
        process.kill()
        process.wait()


def _key() -> str:
    program = Path(shutil.which("java") or "").resolve()
    facts = [str(program), program.stat().st_mtime, JVM, CLUSTER]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]


def _prepared() -> Path:
    return home() / f"prepared-{_key()}"
