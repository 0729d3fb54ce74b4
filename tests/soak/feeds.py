"""What feeds the soak beside Kafka and AWS: a sender of webhooks and a publisher of MQTT, each noting what was acknowledged."""

import abc
import http.client
import json
import random
import threading
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

ANSWERED_S = 60.0
PUBLISHED_S = 120.0
"""Longer than the broker is away, with the reconnect behind it."""


class Sender(abc.ABC):
    """A thread that sends events one by one, each with an id and a sequence number; `ok` is written behind the answer."""

    def __init__(self, path: Path, *, seed: str, rate: float, keys: int, poison: float) -> None:
        self._path = path
        self._chance = random.Random(seed)
        self._rate, self._keys, self._poison = rate, keys, poison
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.sent = 0
        self.acknowledged: set[int] = set()

    @abc.abstractmethod
    def send(self, event: dict[str, Any]) -> str:
        """Send one event and return its outcome: ok, fail, unknown; `down` if there was nobody to send it to."""

    def close(self) -> None:
        """Release what sends."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.close()

    def _run(self) -> None:
        with self._path.open("a") as file:
            while not self._stop.is_set():
                began = time.monotonic()
                number = self.sent + 1
                event: dict[str, Any] = {"id": number, "key": f"key-{number % self._keys}", "seq": number}
                if self._chance.random() < self._poison:
                    event["poison"] = True
                outcome = self.send(event)
                if outcome == "down":
                    self._stop.wait(0.05)
                    continue
                self.sent = number
                if outcome == "ok":
                    self.acknowledged.add(number)
                line = {name: event[name] for name in ("id", "key", "seq")} | {"outcome": outcome}
                file.write(json.dumps(line) + "\n")
                file.flush()
                self._stop.wait(max(0.0, began + 1 / self._rate - time.monotonic()))


class WebhookSender(Sender):
    """Posts to one route of a daemon, wherever that listens at the moment.

    Args:
        route: the route's path.
        url: returns the URL of the public listener; raises OSError or ValueError while there is none.
    """

    def __init__(self, path: Path, *, route: str, url: Callable[[], str], **kinds: Any) -> None:
        super().__init__(path, **kinds)
        self._route, self._url = route, url
        self._connection: http.client.HTTPConnection | None = None

    def send(self, event: dict[str, Any]) -> str:
        if self._connection is None:
            try:
                address = urllib.parse.urlsplit(self._url())
                connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=ANSWERED_S)
                connection.connect()
            except (OSError, ValueError, KeyError):
                return "down"
            self._connection = connection
        try:
            self._connection.request("POST", self._route, json.dumps(event), {"Content-Type": "application/json"})
            answer = self._connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            self.close()
            return "unknown"
        if answer.will_close:
            self.close()
        return "ok" if answer.status == 202 else "fail"

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


class MqttPublisher(Sender):
    """Publishes at QoS 1, a topic a key, and waits for each PUBACK; reconnects by itself.

    Args:
        port: of a broker on loopback.
        topic: `{key}` in it is the event's.
    """

    def __init__(self, path: Path, *, port: int, topic: str, **kinds: Any) -> None:
        super().__init__(path, **kinds)
        self._topic = topic
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=topic.partition("/")[0] + "-publisher", clean_session=False
        )
        self._client.reconnect_delay_set(1, 2)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def send(self, event: dict[str, Any]) -> str:
        if not self._client.is_connected():
            return "down"
        info = self._client.publish(self._topic.format(**event), json.dumps(event), qos=1)
        try:
            info.wait_for_publish(PUBLISHED_S)
        except (RuntimeError, ValueError):
            return "unknown"
        return "ok" if info.is_published() else "unknown"

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
