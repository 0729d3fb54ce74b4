"""The tree of errors: what went wrong, named after what it means for the caller.

BridgeError
├── ConfigError            a mistake in a file, a flag or the environment; exit code 2
├── SourceError            a source could not read, verify or acknowledge
│   └── SourceMissing          there is no such queue or stream
├── InvokeError            an invocation was not accepted (nothing ran)
│   ├── FunctionNotFound       404 ResourceNotFoundException
│   ├── Throttled              429 TooManyRequestsException, with AWS's Reason
│   ├── PayloadTooLarge        413 RequestEntityTooLargeException
│   ├── PayloadInvalid         400 InvalidRequestContentException
│   ├── InvokeDenied           403 AccessDeniedException: a policy, or a remote function that we may not invoke
│   ├── RecursiveInvocation    400 RecursiveInvocationException: a loop of functions
│   ├── Unrunnable             502: no interpreter for the runtime, no package, or no key for the variables
│   └── RuntimeUnavailable     5xx: the function's worker, or its remote, could not be had
├── SealBroken             variables cannot be sealed or opened: 502 in AWS's words where the function is invoked
│   └── KeyRefused             AWS KMS says no, or is not there
├── MappingNotFound        404 ResourceNotFoundException
├── StreamNotFound         404: no mapping reads such an embedded stream
├── LaneFull               a function's lane is at its limit: 503 with Retry-After
├── DestinationError       a destination did not take a record; nothing is settled
└── StoreError             the disk or a database
    ├── StoreFull              no space: intake answers 503 and resumes by itself
    ├── StoreCorrupt           damage below the synced end: `bridge doctor`
    └── StoreBusy              the state folder belongs to a running daemon
"""


class BridgeError(Exception):
    """Base of all errors of this package; its text is one line that says what, where and what to do."""


class ConfigError(BridgeError):
    """A mistake in a file, a flag or the environment."""


class SourceError(BridgeError):
    """A source could not read, verify or acknowledge."""


class SourceMissing(SourceError):
    """There is no such queue or stream: its service says so by its code.

    `told` is what AWS says of it in the answer that makes a mapping.
    """

    def __init__(self, text: str, *, told: str = "") -> None:
        super().__init__(text)
        self.told = told or text


class InvokeError(BridgeError):
    """An invocation was not accepted: nothing ran."""

    code = "ServiceException"
    status = 500


class FunctionNotFound(InvokeError):
    """No such function or qualifier."""

    code = "ResourceNotFoundException"
    status = 404


class Throttled(InvokeError):
    """A concurrency limit held for longer than the caller may wait.

    `reason` is AWS's word, e.g. `ReservedFunctionConcurrentInvocationLimitExceeded`.
    """

    code = "TooManyRequestsException"
    status = 429

    def __init__(self, reason: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__("Rate Exceeded.")
        self.reason = reason
        self.retry_after_s = retry_after_s


class PayloadTooLarge(InvokeError):
    """The serialised event is larger than its invocation type allows."""

    code = "RequestEntityTooLargeException"
    status = 413


class PayloadInvalid(InvokeError):
    """The payload is not JSON in UTF-8."""

    code = "InvalidRequestContentException"
    status = 400


class InvokeDenied(InvokeError):
    """The function may not be invoked: its resource policy, a remote's side, or no --allow-remote says so."""

    code = "AccessDeniedException"
    status = 403


class RecursiveInvocation(InvokeError):
    """The function was in the chain that led to this too often: a loop of functions was stopped."""

    code = "RecursiveInvocationException"
    status = 400


class Unrunnable(InvokeError):
    """No worker can run the version, whatever it is given: no interpreter, no package, no key; nothing ran."""

    status = 502

    def __init__(self, text: str, *, code: str) -> None:
        super().__init__(text)
        self.code = code


class RuntimeUnavailable(InvokeError):
    """No worker could be had for the function, or nobody was there to be asked; nothing ran."""

    code = "ServiceException"
    status = 500


class SealBroken(BridgeError):
    """A sealed value cannot be opened, or nothing sealed: the key is missing, unusable, or another one."""

    code = "KMSNotFoundException"
    """What AWS calls it."""


class KeyRefused(SealBroken):
    """AWS KMS does not let its key be used; `is_lasting`: it said so, and was not just out of reach."""

    def __init__(self, text: str, *, code: str, is_lasting: bool = True) -> None:
        super().__init__(text)
        self.code = code
        self.is_lasting = is_lasting


class MappingNotFound(BridgeError):
    """No event source mapping of that name."""


class StreamNotFound(BridgeError):
    """No mapping reads an embedded stream of that name."""


class LaneFull(BridgeError):
    """The function's lane, or the slowest mapping of the source, is at its limit: only its routes push back."""


class DestinationError(BridgeError):
    """A destination did not take a record; nothing is settled."""


class StoreError(BridgeError):
    """The disk or a database failed."""


class StoreFull(StoreError):
    """No space is left: nothing was written, try again later."""


class StoreCorrupt(StoreError):
    """Damage below the synced end; `bridge doctor` says what can be done."""


class StoreTooNew(StoreError):
    """A newer bridge wrote the state folder; nothing was changed."""


class StoreBusy(StoreError):
    """The state folder belongs to a running daemon."""
