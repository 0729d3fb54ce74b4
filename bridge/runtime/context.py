"""The second argument of a handler (semantics 6.4), as awslambdaric 4.2.2 makes it; child side."""

import json
import sys
import time
from typing import Any


class Fault(Exception):
    """A mistake that AWS reports by a name of its own, e.g. Runtime.ImportModuleError."""

    def __init__(self, error_type: str, message: str, trace: list[str] | None = None) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.message = message
        self.trace = trace
        self.hint = ""
        """What our log adds to it, in one line; empty: nothing."""


class _Fields:
    """An object with the named attributes, all None unless given (AWS's context parts)."""

    __slots__: tuple[str, ...] = ()

    def __init__(self, values: dict[str, Any]) -> None:
        for name in self.__slots__:
            setattr(self, name, values.get(name))

    def __repr__(self) -> str:
        fields = ",".join(f"{name}={getattr(self, name)}" for name in self.__slots__)
        return f"{type(self).__name__}([{fields}])"


class CognitoIdentity:
    """Who called through Cognito: here nobody."""

    # In the class: one is made for every event, and seldom looked at.
    cognito_identity_id: str | None = None
    cognito_identity_pool_id: str | None = None

    def __repr__(self) -> str:
        names = ("cognito_identity_id", "cognito_identity_pool_id")
        return f"CognitoIdentity([{','.join(f'{name}={getattr(self, name)}' for name in names)}])"


class Client(_Fields):
    """The mobile client of a client context."""

    __slots__ = ("app_package_name", "app_title", "app_version_code", "app_version_name", "installation_id")


class ClientContext(_Fields):
    """What the caller sent as X-Amz-Client-Context."""

    __slots__ = ("client", "custom", "env")
    client: Any


class LambdaContext:
    """The second argument of a handler (semantics 6.4)."""

    function_name: str
    function_version: str
    memory_limit_in_mb: str
    log_group_name: str
    log_stream_name: str
    tenant_id: str | None = None

    def __init__(self, request_id: str, arn: str, client_context: str, timeout_ms: int) -> None:
        self.aws_request_id = request_id
        self.invoked_function_arn = arn
        self.client_context = _client_context(client_context) if client_context else None
        self.identity = CognitoIdentity()
        self._end = time.monotonic() + timeout_ms / 1000

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the timeout, never below 0."""
        return max(0, int((self._end - time.monotonic()) * 1000))

    def log(self, message: object) -> None:
        """Write to the log, without a newline of its own."""
        sys.stdout.write(str(message))

    def __repr__(self) -> str:
        names = (
            "aws_request_id", "log_group_name", "log_stream_name", "function_name", "memory_limit_in_mb",
            "function_version", "invoked_function_arn", "client_context", "identity", "tenant_id",
        )  # fmt: skip
        return f"LambdaContext([{','.join(f'{name}={getattr(self, name)}' for name in names)}])"


def _client_context(text: str) -> ClientContext | None:
    try:
        values = json.loads(text)
    except ValueError as error:
        message = f"Unable to parse Client Context JSON: {error}"
        raise Fault("Runtime.LambdaContextUnmarshalError", message) from error
    if not isinstance(values, dict):
        return None
    context = ClientContext(values)
    if isinstance(context.client, dict):
        context.client = Client(context.client)
    return context
