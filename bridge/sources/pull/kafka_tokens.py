"""OAUTHBEARER's tokens: where they come from, and the broker's word on them, which aiokafka would not hear."""

import asyncio
import importlib
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, NoReturn

from bridge.core.connection import KafkaSasl, SaslMechanism
from bridge.core.errors import ConfigError

if TYPE_CHECKING:
    from aiokafka.abc import AbstractTokenProvider

TOKEN_MAX_S: Final = 10.0
"""How long a token may take to be had."""
_ANSWER_SHOWN_BYTES: Final = 200

_TokenSource = Callable[[], Awaitable[object]]


def token_provider(sasl: KafkaSasl) -> "AbstractTokenProvider":
    """Return what aiokafka asks for a token at each connection; it insists on its own base class.

    Why there is none is one of aiokafka's errors: the connection fails, and is tried again with another token.

    Raises:
        ConfigError: the token's function cannot be found, or the extra for AWS_MSK_IAM is not installed.
    """
    from aiokafka.abc import AbstractTokenProvider

    is_iam = sasl.mechanism is SaslMechanism.AWS_MSK_IAM
    source = _iam_token(sasl.region) if is_iam else _token_function(sasl.token)
    name = "AWS_MSK_IAM" if is_iam else f"sasl.token {sasl.token}"

    class TokenProvider(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka is untyped
        async def token(self) -> str:
            try:
                async with asyncio.timeout(TOKEN_MAX_S):
                    token = await source()
            except TimeoutError:
                _refuse(f"{name}: returned nothing within {TOKEN_MAX_S:g} s")
            except Exception as error:  # noqa: BLE001 - the user's function: whatever it raises, there is no token
                _refuse(f"{name}: {type(error).__name__}: {error}")
            if not isinstance(token, str) or not token:
                _refuse(f"{name}: returned no text but {type(token).__name__}")
            return token

    _hear_refusals()
    return TokenProvider()


def _refuse(text: str) -> NoReturn:
    from aiokafka.errors import AuthenticationFailedError

    raise AuthenticationFailedError(text) from None


def _token_function(name: str) -> _TokenSource:
    module_name, _, function_name = name.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"sasl.token {name}: {error}") from error
    if not callable(function):
        raise ConfigError(f"sasl.token {name}: is not a function")

    async def token() -> object:
        if inspect.iscoroutinefunction(function):
            return await function()
        result = await asyncio.to_thread(function)
        return await result if inspect.isawaitable(result) else result

    return token


def _iam_token(region: str) -> _TokenSource:
    try:
        signer = importlib.import_module("aws_msk_iam_sasl_signer")
    except ImportError as error:
        raise ConfigError("sasl.mechanism AWS_MSK_IAM needs an extra: pip install 'bridge[msk]'") from error

    async def token() -> object:
        signed, _expires_ms = await asyncio.to_thread(signer.MSKAuthTokenProvider.generate_auth_token, region)
        return signed

    return token


def _hear_refusals() -> None:
    """Have aiokafka look at the broker's answer to a token; twice is fine.

    It takes every answer for a yes, and fails at its next question, which the broker takes for the client's last word
    (RFC 7628, 3.2.3: a yes is empty, and a no says why).
    """
    from aiokafka import conn

    if conn.OAuthAuthenticator.__module__ == __name__:
        return

    class Authenticator(conn.OAuthAuthenticator):  # type: ignore[misc]  # aiokafka is untyped
        async def step(self, payload: bytes | None) -> tuple[bytes, bool] | None:
            if self._token_sent and payload:
                shown = payload[:_ANSWER_SHOWN_BYTES].decode(errors="replace")
                _refuse(f"the broker does not take the token: {shown}")
            step: tuple[bytes, bool] | None = await super().step(payload)
            return step

    conn.OAuthAuthenticator = Authenticator
