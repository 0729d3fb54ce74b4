"""botocore's model of Lambda: requests that follow it or nearly do, and what is wrong with an answer by it."""

import functools
import json
import re
import urllib.parse
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any

import botocore.session
from botocore.awsrequest import HeadersDict
from botocore.eventstream import EventStreamBuffer
from botocore.model import OperationModel, Shape
from botocore.parsers import create_parser
from botocore.serialize import create_serializer

from tests.zips import zipped

MODEL = botocore.session.get_session().get_service_model("lambda")
ACCOUNT, REGION = "000000000000", "us-east-1"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/r"
CODE, OTHER = zipped({"app.py": "def handler(event, context): pass"}), zipped({"app.py": "x = 1"})

COMMON = {
    "AccessDeniedException": 403,
    "IncompleteSignatureException": 403,
    "InvalidParameterValueException": 400,
    "InvalidSignatureException": 403,
    "MissingAuthenticationTokenException": 403,
    "RequestEntityTooLargeException": 413,
    "ResourceConflictException": 409,
    "ResourceNotFoundException": 404,
    "SerializationException": 400,
    "TooManyRequestsException": 429,
    "UnknownOperationException": 404,
    "UnrecognizedClientException": 403,
    "ValidationException": 400,
}
"""What any operation may answer beside its own errors (API_Reference, CommonErrors)."""

_SERIALIZER = create_serializer("rest-json", include_validation=False)
_PARSER = create_parser("rest-json")


@dataclass(frozen=True)
class Call:
    """One request, as it goes over the wire."""

    operation: str
    method: str
    target: str
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""


# --- requests -----------------------------------------------------------------------------------------------------
def arn(name: str) -> str:
    return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"


FUNCTIONS = ("made", "made", "made", "other", "hello", "nobody", arn("made"), "made:1", "made:live", arn("made:2"),
             f"{ACCOUNT}:function:made", "made:$LATEST", "arn:aws:lambda:eu-west-1:000000000000:function:made",
             "arn:aws:lambda:us-east-1:111122223333:function:made")  # fmt: skip
LAYER = f"arn:aws:lambda:{REGION}:{ACCOUNT}:layer:lay"
LIKELY: dict[str, tuple[Any, ...]] = {
    "FunctionName": FUNCTIONS,
    "Qualifier": ("1", "2", "live", "$LATEST", "9", "dead"),
    "FunctionVersion": ("1", "2", "$LATEST", "9", "ALL"),
    "Name": ("live", "next", "1"),
    "Role": (ROLE,),
    "Handler": ("app.handler",),
    "Runtime": ("python3.13", "python3.12", "nodejs22.x"),
    "ZipFile": (CODE, CODE, OTHER, OTHER, b"no zip"),
    "Resource": (arn("made"), arn("hello"), arn("nobody"), "arn:aws:s3:::bucket"),
    "TargetArn": (f"arn:aws:sqs:{REGION}:{ACCOUNT}:dead", f"arn:aws:sns:{REGION}:{ACCOUNT}:topic", ""),
    "Destination": (f"arn:aws:sqs:{REGION}:{ACCOUNT}:done", arn("hello"), arn("made"), "arn:aws:s3:::bucket"),
    "LayerName": ("lay", LAYER, "none"),
    "VersionNumber": (1, 2, 9),
    "Layers": ([f"{LAYER}:1"], [f"{LAYER}:1", f"{LAYER}:2"], [f"{LAYER}:9"], []),
    "Arn": (f"{LAYER}:1", f"{LAYER}:9", LAYER),
    "StatementId": ("one", "two", "three"),
    "Action": ("lambda:InvokeFunction", "lambda:GetLayerVersion", "lambda:InvokeFunctionUrl"),
    "Principal": ("s3.amazonaws.com", "111122223333", "*", "arn:aws:iam::111122223333:root", "nobody"),
    "SourceArn": ("arn:aws:s3:::bucket",),
    "EventSourceArn": (
        f"arn:aws:sqs:{REGION}:{ACCOUNT}:queue", f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/clicks",
        f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/t/stream/2024-01-01T00:00:00.000",
        f"arn:aws:kafka:{REGION}:{ACCOUNT}:cluster/c/751d2973-a626-431c-9d4e-d7975eb44dd7-2", "local://clicks",
    ),
    "UUID": ("751d2973-a626-431c-9d4e-d7975eb44dd7", "x"),
    "ReservedConcurrentExecutions": (0, 1, 100, 900, 901),
    "ProvisionedConcurrentExecutions": (1, 2, 1000),
    "PackageType": ("Zip",),
    "Marker": ("bWFkZQ==", "no"),
    "MaxItems": (1, 2, 50, 10_000),
    "Pattern": ('{"body": {"a": [1]}}', '{"a"', "[]"),
    "Payload": (b"{}", b'{"a":1}', b"[", b""),
    "Value": ("1", ""),
    "Variables": ({"AB": "1"}, {}, {"CD": ""}, {"AWS_REGION": "x"}),
    "AdditionalVersionWeights": ({"2": 0.1}, {}, {"1": 0.5}),
    "Tags": ({"team": "a"}, {"b": ""}, {"aws:a": "1"}),
    "Architectures": (["x86_64"], ["arm64"]),
    "LogGroup": ("/aws/lambda/made",),
    "InvocationType": ("RequestResponse", "Event", "DryRun"),
    "InvokeArgs": (b"{}", b"["),
    "Topics": (["orders"],),
    "CodeSigningConfigArn": (f"arn:aws:lambda:{REGION}:{ACCOUNT}:code-signing-config:csc-0123456789abcdef0",),
}  # fmt: skip
"""Values of members that lead further in than the model's shapes alone do."""
NEW = {"CreateFunction": ("other", "third")}
"""Names that are not taken yet."""
OFTEN = frozenset({"EventSourceArn", "ZipFile", "Runtime", "Handler"})
"""Optional members without which not much happens."""
SELDOM = frozenset({
    "CodeSha256", "CodeSigningConfigArn", "DryRun", "DurableConfig", "FileSystemConfigs", "ImageConfig", "ImageUri",
    "KMSKeyArn", "Layers", "RevisionId", "S3Bucket", "S3Key", "S3ObjectStorageMode", "S3ObjectVersion",
    "SourceKMSKeyArn", "TenancyConfig", "CapacityProviderConfig", "PublishTo", "Queues", "Topics", "SourceAccessConfigurations", "SelfManagedEventSource", "FilterCriteria",
    "SelfManagedKafkaEventSourceConfig", "AmazonManagedKafkaEventSourceConfig", "DocumentDBEventSourceConfig", "StartingPositionTimestamp", "ProvisionedPollerConfig", "ScalingConfig", "LoggingConfig", "MetricsConfig", "PackageType", "VpcConfig", "Marker",
})  # fmt: skip
"""Optional members that end most requests early."""


class Maker:
    """Makes requests of random choices.

    Args:
        random: the same one makes the same requests.
        wild: one value in so many leaves its range or its pattern.
    """

    def __init__(self, random: Random, *, wild: int = 60) -> None:
        self._random = random
        self._wild = wild

    def call(self, operation: str) -> Call:
        """Return a request of an operation: by the model, nearly so, or spoilt on its way."""
        model = MODEL.operation_model(operation)
        given = {} if model.input_shape is None else self._structure(model.input_shape)
        if operation in NEW and self._one_in(2):
            given["FunctionName"] = self._random.choice(NEW[operation])
        made = _SERIALIZER.serialize_to_request(given, model)
        query = made["query_string"]
        pairs = list(query.items()) if isinstance(query, dict) else list(query)
        flat = [(key, each) for key, value in pairs for each in (value if isinstance(value, list) else [value])]
        if self._one_in(20):
            flat.append((self._random.choice(["Qualifier", "MaxItems", "Marker", "x"]), self._text(6)))
        body = made["body"] or b""
        body = body.encode() if isinstance(body, str) else bytes(body)
        if body and self._one_in(8):
            body = self._spoilt(body)
        headers = [(name, str(value).encode().decode("latin-1")) for name, value in made["headers"].items()]
        text = urllib.parse.urlencode([(key, _queried(value)) for key, value in flat])
        path = made["url_path"]
        if "?" not in path and self._one_in(30):
            path += "/"
        if text:
            path += f"{'&' if '?' in path else '?'}{text}"
        return Call(operation, made["method"], path, headers, body)

    def _one_in(self, count: int) -> bool:
        return self._random.randrange(count) == 0

    # --- by the model -----------------------------------------------------------------------------------------------

    def _structure(self, shape: Shape) -> dict[str, Any]:
        given = {}
        for name, member in shape.members.items():
            is_required, is_path = (
                name in shape.required_members or name in OFTEN,
                member.serialization.get("location") == "uri",
            )
            if is_path or self._one_in(80 if is_required or name in SELDOM else 4) != is_required:
                value = self._member(name, member)
                given[name] = value or "x" if is_path else value  # an empty segment is another operation's path
        return given

    def _member(self, name: str, shape: Shape) -> Any:
        likely = [value for value in LIKELY.get(name, ()) if isinstance(value, _GIVEN[shape.type_name])]
        if likely and not self._one_in(self._wild):
            return self._random.choice(likely)
        return self._value(shape)

    def _value(self, shape: Shape) -> Any:
        kind, limits, random = shape.type_name, shape.metadata, self._random
        if kind == "structure":
            return self._structure(shape)
        if kind == "list":
            return [self._value(shape.member) for _ in range(random.randrange(4))]
        if kind == "map":
            return {self._text(4): self._value(shape.value) for _ in range(random.randrange(3))}
        if kind in ("integer", "long"):
            least, most = limits.get("min", 0), limits.get("max", 2**31 - 1)
            beyond = [least - 1, most + 1, -(2**63), 2**64]
            return random.choice(beyond) if self._one_in(self._wild) else random.randint(least, max(least, most))
        if kind in ("float", "double"):
            return random.choice([0.0, 0.5, 1.0, 1.5, -1.0, 1e308])
        if kind == "boolean":
            return random.choice([True, False])
        if kind == "timestamp":
            return datetime(2000 + random.randrange(50), 1, 1, tzinfo=UTC)
        if kind == "blob":
            return random.randbytes(random.randrange(20))
        return self._word(shape)

    def _word(self, shape: Shape) -> str:
        if self._one_in(self._wild):
            return self._text(300)
        if shape.enum:
            return self._random.choice(shape.enum)
        if pattern := shape.metadata.get("pattern"):
            return self._matching(_parsed(pattern))[: shape.metadata.get("max", 140)]
        return self._text(20)

    def _text(self, most: int) -> str:
        letters = 'ab1-_:$/.%" \\\t\n\0é\u2028\U0001f600'
        return "".join(self._random.choice(letters) for _ in range(self._random.randrange(most + 1)))

    def _matching(self, parsed: Iterable[Any]) -> str:
        """Return a text that matches a pattern, about: what looks ahead is not looked at."""
        made, random = "", self._random
        for kind, given in parsed:
            name = str(kind)
            if name == "LITERAL":
                made += chr(given)
            elif name == "IN":
                made += self._of_class(given)
            elif name == "BRANCH":
                made += self._matching(random.choice(given[1]))
            elif name == "SUBPATTERN":
                made += self._matching(given[3])
            elif name in ("MAX_REPEAT", "MIN_REPEAT"):
                least, most = given[0], min(int(given[1]), int(given[0]) + 8)
                made += "".join(self._matching(given[2]) for _ in range(random.randint(least, most)))
            elif name in ("ANY", "NOT_LITERAL"):
                made += random.choice("abc01-_")
        return made

    def _of_class(self, parts: list[Any]) -> str:
        kind, given = self._random.choice(parts)
        if str(kind) == "RANGE":
            return chr(self._random.randint(*given))
        if str(kind) == "LITERAL":
            return chr(given)
        return self._random.choice("0123456789" if "DIGIT" in str(given) else "abc-")

    # --- spoilt -----------------------------------------------------------------------------------------------------

    def _spoilt(self, body: bytes) -> bytes:
        random = self._random
        try:
            document = json.loads(body)
        except ValueError:
            return random.randbytes(random.randrange(30))
        if not isinstance(document, dict) or not document or self._one_in(5):
            return random.choice([random.randbytes(20), json.dumps(self._json()).encode(), body[: len(body) // 2]])
        place = document
        while True:  # some member, at any depth
            name = random.choice(sorted(place))
            if not isinstance(place[name], dict) or not place[name] or self._one_in(2):
                break
            place = place[name]
        place[name] = self._json()
        return json.dumps(document).encode()

    def _json(self, depth: int = 3) -> Any:
        random = self._random
        scalar = [None, True, False, 0, -1, 2**63, 2**64, 1.5, float("nan"), "", "x", "1", "\ud800", self._text(5)]
        kind = random.randrange(4) if depth else 0
        if kind == 1:
            return [self._json(depth - 1) for _ in range(random.randrange(3))]
        if kind == 2:
            return {self._text(5): self._json(depth - 1) for _ in range(random.randrange(3))}
        return random.choice(scalar)


_GIVEN: dict[str, Any] = {
    "structure": dict, "map": dict, "list": list, "string": str, "integer": int, "long": int, "blob": bytes,
    "float": float, "double": float, "boolean": bool, "timestamp": (),
}  # fmt: skip


@functools.cache
def _parsed(pattern: str) -> Any:
    try:
        return re._parser.parse(pattern)
    except re.error:  # Java's own
        return re._parser.parse("[a-z]{1,20}")


def _queried(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# --- answers ------------------------------------------------------------------------------------------------------
def faults(operation: str, status: int, headers: dict[str, str], body: bytes) -> list[str]:
    """Return what is wrong with an answer by the model."""
    model = MODEL.operation_model(operation)
    if status >= 300:
        return _error_faults(model, status, headers, body)
    expected = model.http.get("responseCode", 200)
    found = [] if status == expected or operation in STATUSES.get(status, ()) else [f"status {status}, not {expected}"]
    if not headers.get("x-amzn-requestid"):
        found.append("no request id")
    shape = model.output_shape
    if model.has_event_stream_output:
        return found + _stream_faults(headers, body)
    parsed = _PARSER.parse({"status_code": status, "headers": HeadersDict(headers), "body": body}, shape)
    assert parsed["ResponseMetadata"]["HTTPStatusCode"] == status
    if shape is not None and not shape.serialization.get("payload") and status != 204:
        try:
            document = json.loads(body)
        except ValueError:
            return [*found, f"no JSON: {body[:100]!r}"]
        found += list(_differences(shape, document, operation))
    return found


STATUSES: dict[int, tuple[str, ...]] = {
    200: ("InvokeWithResponseStream",),
    202: ("Invoke",),
    204: ("Invoke", "DeleteFunction", "InvokeWithResponseStream"),
}
"""Statuses beside those of the model: Invoke's three types, and DeleteFunction, which both seen (semantics 0.3, 1.2)."""


def _error_faults(model: OperationModel, status: int, headers: dict[str, str], body: bytes) -> list[str]:
    parsed = _PARSER.parse({"status_code": status, "headers": HeadersDict(headers), "body": body}, model.output_shape)
    code, text = parsed["Error"]["Code"], parsed["Error"]["Message"]
    found = [] if text and headers.get("x-amzn-requestid") else ["no text, or no request id"]
    shapes = {shape.error_code: shape for shape in model.error_shapes}
    if code in shapes:
        wanted = shapes[code].metadata.get("error", {}).get("httpStatusCode", status)
    else:
        wanted = COMMON.get(code)
    if status == 500 or wanted != status:
        found.append(f"{status} {code}: {text[:200]}")
    return found


def _stream_faults(headers: dict[str, str], body: bytes) -> list[str]:
    if not body:
        return []  # of type DryRun
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    kinds = [event.headers[":event-type"] for event in buffer]
    return [] if kinds in (["InvokeComplete"], ["PayloadChunk", "InvokeComplete"]) else [f"frames {kinds}"]


_RECORDED = {("LastUpdateStatusReasonCode", "Creating")}
"""Words that AWS answers and that its own model has not (semantics 5.2)."""
_TYPES: dict[str, type | tuple[type, ...]] = {
    "structure": dict, "map": dict, "list": list, "string": str, "boolean": bool, "integer": int, "long": int,
    "float": (int, float), "double": (int, float), "timestamp": (int, float, str), "blob": str,
}  # fmt: skip


_MAY_BE_EMPTY = ("GetFunctionCodeSigningConfig",)
"""AWS answers it without any member for a function that has none, whatever its model requires."""


def _differences(shape: Shape, value: Any, where: str) -> list[str]:
    """Return where a JSON value is not of a shape: other members, other types, words that are not in an enum."""
    kind = shape.type_name
    if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        return [f"{where} is {value!r}, no {kind}"]
    if kind == "structure":
        names = {member.serialization.get("name", name): member for name, member in shape.members.items()}
        found = [f"{where}.{name} is no member" for name in value.keys() - names.keys()]
        if where not in _MAY_BE_EMPTY or value:
            found += [f"{where}.{name} is missing" for name in shape.required_members if name not in value]
        known = [(name, item) for name, item in value.items() if name in names]
        return found + [each for name, item in known for each in _differences(names[name], item, f"{where}.{name}")]
    if kind == "list":
        return [each for item in value for each in _differences(shape.member, item, f"{where}[]")]
    if kind == "map":
        return [each for name, item in value.items() for each in _differences(shape.value, item, f"{where}.{name}")]
    if kind == "string" and shape.enum and value not in shape.enum and (shape.name, value) not in _RECORDED:
        return [f"{where} is {value!r}, not of {shape.enum}"]
    return []
