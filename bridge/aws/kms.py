"""Data keys of AWS KMS: made and unwrapped within an encryption context; refusals in the words of Lambda."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from bridge.aws.clients import AwsClients
from bridge.aws.errors import AwsTrouble, AwsTroubleKind, call_errors, trouble
from bridge.core.arn import parse_arn
from bridge.core.connection import AwsConnection
from bridge.core.errors import ConfigError, KeyRefused

ASK_MAX_S: Final = 10.0
"""How long one call may take, apart from making the first client."""
_ACCESS: Final = ("KMSAccessDeniedException", "KMS access was denied")
_STATES: Final = ("KMSInvalidStateException", "the state of the KMS key used is not valid for Decrypt")
_CODES: Final = {
    "DisabledException": ("KMSDisabledException", "the KMS key used is disabled"),
    "NotFoundException": ("KMSNotFoundException", "the KMS key was not found"),
    "InvalidArnException": ("KMSNotFoundException", "the KMS key was not found"),
    "KMSInvalidStateException": _STATES,
    "InvalidKeyUsageException": _STATES,
    "KeyUnavailableException": _STATES,
    "InvalidCiphertextException": _STATES,
    "IncorrectKeyException": _STATES,
    "AccessDeniedException": _ACCESS,
}
"""What KMS says -> what Lambda says (API_Invoke's errors)."""
_KINDS: Final = {
    AwsTroubleKind.DENIED: _ACCESS,
    AwsTroubleKind.EXPIRED_TOKEN: _ACCESS,
    AwsTroubleKind.NOT_FOUND: _CODES["NotFoundException"],
    AwsTroubleKind.INVALID: _STATES,
}
_AWAY: Final = ("KMSInvalidStateException", "KMS could not be reached")


class KmsKeys:
    """Asks KMS, one attempt a call.

    Args:
        clients: of AWS.
        find: the connection by which an ARN is reached; raises ConfigError.
    """

    def __init__(self, clients: AwsClients, *, find: Callable[[str], AwsConnection]) -> None:
        self._clients = clients
        self._find = find

    async def generate(self, key: str, context: Mapping[str, str]) -> tuple[bytes, bytes, str]:
        """Return a new data key of 256 bits, the same wrapped, and the ARN of the key that did (GenerateDataKey).

        Raises:
            KeyRefused: in AWS's words.
        """
        found = await self._call(
            key, "configure access to your", "generate_data_key", KeySpec="AES_256", EncryptionContext=dict(context)
        )
        return found["Plaintext"], found["CiphertextBlob"], str(found.get("KeyId") or key)

    async def decrypt(self, key: str, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """Return a data key unwrapped (Decrypt). Raises KeyRefused."""
        found = await self._call(key, "decrypt the", "decrypt", CiphertextBlob=wrapped, EncryptionContext=dict(context))
        plain: bytes = found["Plaintext"]
        return plain

    async def _call(self, key: str, what: str, operation: str, **members: Any) -> dict[str, Any]:
        try:
            connection, region = self._find(key), parse_arn(key).region
        except (ConfigError, ValueError) as error:
            raise _refusal(what, ("KMSNotFoundException", "the KMS key was not found"), "", str(error)) from error
        try:
            client = await self._clients.client(connection, "kms", region=region)
            async with asyncio.timeout(ASK_MAX_S):
                found: dict[str, Any] = await getattr(client, operation)(KeyId=key, **members)
                return found
        except call_errors() as error:
            raise _refused(what, trouble(error)) from error


def _refused(what: str, told: AwsTrouble) -> KeyRefused:
    known = _CODES.get(told.code) or _KINDS.get(told.kind)
    return _refusal(what, known or _AWAY, told.code, told.message, is_lasting=known is not None)


def _refusal(what: str, known: tuple[str, str], code: str, message: str, *, is_lasting: bool = True) -> KeyRefused:
    """Return it as AWS words it; what KMS says names the key and the caller, and never holds a key."""
    text = (
        f"Lambda was unable to {what} environment variables because {known[1]}. Please check the function's KMS key "
        f"settings. KMS Exception: {code or known[0]} KMS Message: {message}"
    )
    return KeyRefused(text, code=known[0], is_lasting=is_lasting)
