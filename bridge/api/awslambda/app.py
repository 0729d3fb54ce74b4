"""Lambda's API: which operation a request is, who may do it, and its answer or its refusal in AWS's form."""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from bridge.api.awslambda.access import AccessRules, authenticate, operator
from bridge.api.awslambda.concurrency import ConcurrencyOperations
from bridge.api.awslambda.control import PENDING, MadeFunctions
from bridge.api.awslambda.editions import EditionOperations
from bridge.api.awslambda.errors import Refused
from bridge.api.awslambda.event_sources import EventSourceOperations, by_arn
from bridge.api.awslambda.invocations import InvocationOperations
from bridge.api.awslambda.layers import LayerOperations
from bridge.api.awslambda.links import ContentLinks
from bridge.api.awslambda.names import read_name
from bridge.api.awslambda.permissions import PermissionOperations
from bridge.api.awslambda.permits import admitted
from bridge.api.awslambda.reading import ReadOperations
from bridge.api.awslambda.recursion import RecursionOperations
from bridge.api.awslambda.safeguards import RuntimeManagementOperations, SigningOperations
from bridge.api.awslambda.sharing import SharingOperations
from bridge.api.awslambda.uploads import Upload, Uploads
from bridge.api.awslambda.urls import UrlOperations
from bridge.api.awslambda.writing import WriteOperations
from bridge.api.http import Answer, HttpError, Request
from bridge.api.invoke import InvokeEndpoint
from bridge.api.router import Router
from bridge.api.services import Services
from bridge.core.errors import KeyRefused, SealBroken, StoreFull
from bridge.registry.access import Caller
from bridge.util.asgi import ClientGone
from bridge.util.ids import new_id

log = structlog.get_logger("bridge.lambda")

_PATH: Final = re.compile(r"/20[0-9]{2}-[0-9]{2}-[0-9]{2}/")
"""How every path of Lambda's API begins: the version of the operation."""

Reader = Callable[[Request, Caller], Awaitable[Answer]]
Uploader = Callable[[Request, Caller, Upload], Awaitable[Answer]]
Invocation = Callable[[Request, str, Callable[[bytes], str]], Awaitable[Answer]]

_FUNCTION: Final = "/2015-03-31/functions/{fn}"
_EVENT_INVOKE: Final = "/2019-09-25/functions/{fn}/event-invoke-config"
_ELSEWHERE: Final = "the daemon's file declares such things, and `bridge reload` takes it anew"
_CAPACITY: Final = "/2025-11-30/capacity-providers"
_DURABLE: Final = "/2025-12-01/durable-executions/{id}"
_CALLBACK: Final = "/2025-12-01/durable-execution-callbacks/{id}"
_SCALING: Final = "/2025-11-30/functions/{fn}/function-scaling-config"
_RESOURCE_POLICY: Final = "/2026-07-09/resource-policy/{arn}"
_TO_THEIR_END: Final = (
    ("POST", _CAPACITY, "CreateCapacityProvider"),
    ("GET", _CAPACITY, "ListCapacityProviders"),
    ("GET", _CAPACITY + "/{id}", "GetCapacityProvider"),
    ("PUT", _CAPACITY + "/{id}", "UpdateCapacityProvider"),
    ("DELETE", _CAPACITY + "/{id}", "DeleteCapacityProvider"),
    ("GET", _CAPACITY + "/{id}/function-versions", "ListFunctionVersionsByCapacityProvider"),
    ("GET", "/2025-12-01/functions/{fn}/durable-executions", "ListDurableExecutionsByFunction"),
    ("GET", _DURABLE, "GetDurableExecution"),
    ("GET", _DURABLE + "/history", "GetDurableExecutionHistory"),
    ("GET", _DURABLE + "/state", "GetDurableExecutionState"),
    ("POST", _DURABLE + "/checkpoint", "CheckpointDurableExecution"),
    ("POST", _DURABLE + "/stop", "StopDurableExecution"),
    ("POST", _CALLBACK + "/succeed", "SendDurableExecutionCallbackSuccess"),
    ("POST", _CALLBACK + "/fail", "SendDurableExecutionCallbackFailure"),
    ("POST", _CALLBACK + "/heartbeat", "SendDurableExecutionCallbackHeartbeat"),
    ("GET", _SCALING, "GetFunctionScalingConfig"),
    ("PUT", _SCALING, "PutFunctionScalingConfig"),
)
_BY_STATEMENTS: Final = (
    ("GET", _RESOURCE_POLICY, "GetResourcePolicy"),
    ("PUT", _RESOURCE_POLICY, "PutResourcePolicy"),
    ("DELETE", _RESOURCE_POLICY, "DeleteResourcePolicy"),
)
_NOT_OFFERED: Final = (
    ("functions run to their end, in this daemon", _TO_THEIR_END),
    ("a resource policy is read by GetPolicy, and made of statements by AddPermission", _BY_STATEMENTS),
)
"""Why, and the operations: of botocore's model, all that nothing here answers."""
_ALIAS: Final = _FUNCTION + "/aliases/{alias}"
_LAYERS: Final = "/2018-10-31/layers"
_LAYER: Final = _LAYERS + "/{layer}/versions"
_LAYER_VERSION: Final = _LAYER + "/{version}"
_RECURSION: Final = "/2024-08-31/functions/{fn}/recursion-config"
_SIGNING: Final = "/2020-04-22/code-signing-configs"
_SIGNING_OF: Final = "/2020-06-30/functions/{fn}/code-signing-config"
_RUNTIME: Final = "/2021-07-20/functions/{fn}/runtime-management-config"
_MAPPINGS: Final = "/2015-03-31/event-source-mappings"
_TAGS: Final = "/2017-03-31/tags/{arn}"
_CONCURRENCY: Final = "/2017-10-31/functions/{fn}/concurrency"
_PROVISIONED: Final = "/2019-09-30/functions/{fn}/provisioned-concurrency"
_URL: Final = "/2021-10-31/functions/{fn}/url"
_WRITING: Final = (
    ("POST", "/2015-03-31/functions", "CreateFunction"),
    ("DELETE", _FUNCTION, "DeleteFunction"),
    ("PUT", _FUNCTION + "/code", "UpdateFunctionCode"),
    ("PUT", _FUNCTION + "/configuration", "UpdateFunctionConfiguration"),
    ("POST", _FUNCTION + "/versions", "PublishVersion"),
    ("POST", _FUNCTION + "/aliases", "CreateAlias"),
    ("GET", _ALIAS, "GetAlias"),
    ("PUT", _ALIAS, "UpdateAlias"),
    ("DELETE", _ALIAS, "DeleteAlias"),
    ("PUT", _CONCURRENCY, "PutFunctionConcurrency"),
    ("DELETE", _CONCURRENCY, "DeleteFunctionConcurrency"),
    ("PUT", _PROVISIONED, "PutProvisionedConcurrencyConfig"),
    ("GET", _PROVISIONED, "GetProvisionedConcurrencyConfig"),
    ("DELETE", _PROVISIONED, "DeleteProvisionedConcurrencyConfig"),
    ("PUT", _EVENT_INVOKE, "PutFunctionEventInvokeConfig"),
    ("POST", _EVENT_INVOKE, "UpdateFunctionEventInvokeConfig"),
    ("DELETE", _EVENT_INVOKE, "DeleteFunctionEventInvokeConfig"),
    ("POST", _URL, "CreateFunctionUrlConfig"),
    ("GET", _URL, "GetFunctionUrlConfig"),
    ("PUT", _URL, "UpdateFunctionUrlConfig"),
    ("DELETE", _URL, "DeleteFunctionUrlConfig"),
    ("GET", _URL + "s", "ListFunctionUrlConfigs"),
    ("POST", _FUNCTION + "/policy", "AddPermission"),
    ("DELETE", _FUNCTION + "/policy/{sid}", "RemovePermission"),
)
_LAYERING: Final = (
    ("GET", _LAYERS, "ListLayers"),
    ("GET", _LAYER, "ListLayerVersions"),
    ("POST", _LAYER, "PublishLayerVersion"),
    ("GET", _LAYER_VERSION, "GetLayerVersion"),
    ("DELETE", _LAYER_VERSION, "DeleteLayerVersion"),
    ("POST", _LAYER_VERSION + "/policy", "AddLayerVersionPermission"),
    ("GET", _LAYER_VERSION + "/policy", "GetLayerVersionPolicy"),
    ("DELETE", _LAYER_VERSION + "/policy/{sid}", "RemoveLayerVersionPermission"),
)


@dataclass(frozen=True, slots=True)
class _Read:
    action: str
    handler: Reader
    variants: Mapping[str, "_Read"] = field(default_factory=dict)
    """Other operations of the same path, by the name in the query that asks for them."""


@dataclass(frozen=True, slots=True)
class _Upload:
    """An operation whose request carries a package."""

    action: str
    handler: Uploader


@dataclass(frozen=True, slots=True)
class _Invoke:
    handler: Invocation
    action: str = "lambda:InvokeFunction"


class LambdaApi:
    """Answers the paths of Lambda's API.

    Args:
        services: what is acted on.
        rules: who may call.
        links: to packages.
    """

    def __init__(self, services: Services, rules: AccessRules, links: ContentLinks) -> None:
        self._services = services
        self._rules = rules
        self._links = links
        self._reading = ReadOperations(services, links)
        self._mappings = EventSourceOperations(
            services.made_mappings,
            statuses=services.mappings.status,
            functions=services.functions,
            clock=services.clock,
        )
        self._router = Router[_Read | _Upload | _Invoke]()
        self._uploads = None if services.made is None else Uploads(services.made.packages.temporary, services.code)
        self._add_operations()
        if services.made is not None and self._uploads is not None:
            self._add_writing(services.made, self._uploads)

    def set_rules(self, rules: AccessRules) -> None:
        """Ask by these rules from the next request on; account and region stay what they were."""
        self._rules = replace(rules, account=self._rules.account, region=self._rules.region)

    @staticmethod
    def answers(path: str) -> bool:
        """Tell whether a path is one of Lambda's API."""
        return _PATH.match(path) is not None

    async def answer(self, request: Request) -> Answer:
        """Answer one request; never raises but ClientGone."""
        request_id = new_id()
        try:
            return await self._answer(request, request_id)
        except ClientGone:
            raise
        except Refused as error:
            return error.answer(request_id)
        except KeyRefused as error:
            return Refused(error.code, str(error), status=502, kind="Service").answer(request_id)
        except (StoreFull, SealBroken) as error:
            return Refused("ServiceException", str(error), status=503, kind="Service").answer(request_id)
        except HttpError as error:
            return _unusable(error, request).answer(request_id)
        except Exception:  # the task boundary: the caller gets AWS's word, the log the traceback
            log.exception("request_failed", method=request.method, path=request.path)
            text = "internal error; the daemon's log says more"
            return Refused("ServiceException", text, status=500, kind="Service").answer(request_id)

    async def content(self, request: Request) -> Answer:
        """Answer a link to a package.

        Raises:
            HttpError: not one of ours, one that has ended, or there is nothing behind it.
        """
        if (made := self._services.made) is None:
            raise HttpError(404, "there are no packages here")
        return await asyncio.to_thread(self._links.answer, request, lambda key: made.packages.get(key).zip)

    async def _answer(self, request: Request, request_id: str) -> Answer:
        sent, request.path = request.path, request.path.rstrip("/") or "/"
        operation = self._router.find(request)
        request.path = sent  # which is what a signature is of
        if isinstance(operation, _Invoke):
            if request.is_operator:
                raise HttpError(404, "the operator invokes by the admin API's own path")
            return await operation.handler(request, request_id, lambda body: self._target(request, body))
        if isinstance(operation, _Upload):
            answer = await self._upload(request, operation)
        else:
            for name, _ in request.query() if operation.variants else ():
                operation = operation.variants.get(name, operation)
            body = await request.body()
            caller = self._caller(request, lambda: _hash(body), operation.action)
            answer = await operation.handler(request, caller)
        answer.headers.setdefault("x-amzn-requestid", request_id)
        return answer

    async def _upload(self, request: Request, operation: _Upload) -> Answer:
        assert self._uploads is not None
        async with self._uploads.receive(request, operation.action.removeprefix("lambda:")) as upload:
            caller = self._caller(request, lambda: upload.body_hash, operation.action)
            return await operation.handler(request, caller, upload)

    def _caller(self, request: Request, body_hash: Callable[[], str], action: str) -> Caller:
        if request.is_operator:
            return operator(request, self._rules)
        caller = authenticate(request, body_hash, self._rules, self._services.clock)
        return admitted(request, caller, action, self._services.attached.policies)

    def _target(self, request: Request, body: bytes) -> str:
        """Return what an invocation is for, once it is known that its caller may."""
        caller = self._caller(request, lambda: _hash(body), "lambda:InvokeFunction")
        name = read_name(request.params["fn"], caller, qualifier=dict(request.query()).get("Qualifier"))
        self._reading.find(name, caller)
        if (made := self._services.made) is not None and made.state(name.name) == PENDING:
            made.check_settled(name.name)
        return name.target

    # --- operations ---------------------------------------------------------------------------------------------

    def _add_operations(self) -> None:
        invocations, reading = InvocationOperations(InvokeEndpoint(self._services)), self._reading
        add = self._router.add
        add("POST", _FUNCTION + "/invocations", _Invoke(invocations.invoke))
        add("POST", "/2014-11-13/functions/{fn}/invoke-async", _Invoke(invocations.invoke_async))
        stream = "/2021-11-15/functions/{fn}/response-streaming-invocations"
        add("POST", stream, _Invoke(invocations.response_stream))
        for path, action, handler in (
            ("/2015-03-31/functions", "ListFunctions", reading.list_functions),
            (_FUNCTION, "GetFunction", reading.get_function),
            (_FUNCTION + "/configuration", "GetFunctionConfiguration", reading.get_configuration),
            (_FUNCTION + "/versions", "ListVersionsByFunction", reading.list_versions),
            (_FUNCTION + "/aliases", "ListAliases", reading.list_aliases),
            (_FUNCTION + "/policy", "GetPolicy", reading.get_policy),
            ("/2019-09-30/functions/{fn}/concurrency", "GetFunctionConcurrency", reading.get_concurrency),
            (_EVENT_INVOKE, "GetFunctionEventInvokeConfig", reading.get_event_invoke),
            (_EVENT_INVOKE + "/list", "ListFunctionEventInvokeConfigs", reading.list_event_invoke),
            ("/2016-08-19/account-settings", "GetAccountSettings", reading.account_settings),
        ):  # fmt: skip
            add("GET", path, _Read(f"lambda:{action}", handler))
        self._add_mappings()
        self._add_tags()
        recursion = RecursionOperations(self._services.attached.recursion, reading)
        add("GET", _RECURSION, _Read("lambda:GetFunctionRecursionConfig", recursion.get))
        add("PUT", _RECURSION, _Read("lambda:PutFunctionRecursionConfig", self._alone(recursion.put)))
        self._add_safeguards()
        for why, operations in _NOT_OFFERED:
            for method, path, action in operations:
                add(method, path, _Read(f"lambda:{action}", _not_offered(action, why)))
        if self._services.made is None:
            for method, path, action in (*_WRITING, *_LAYERING):
                add(method, path, _Read(f"lambda:{action}", _not_offered(action)))

    def _add_safeguards(self) -> None:
        services, reading = self._services, self._reading
        signing = SigningOperations(services.attached.safeguards, reading, services.clock)
        runtime = RuntimeManagementOperations(services.attached.safeguards, reading)
        for method, path, action, handler in (
            ("POST", _SIGNING, "CreateCodeSigningConfig", signing.create),
            ("GET", _SIGNING, "ListCodeSigningConfigs", signing.list),
            ("GET", _SIGNING + "/{arn}", "GetCodeSigningConfig", signing.get),
            ("PUT", _SIGNING + "/{arn}", "UpdateCodeSigningConfig", signing.update),
            ("DELETE", _SIGNING + "/{arn}", "DeleteCodeSigningConfig", signing.delete),
            ("GET", _SIGNING + "/{arn}/functions", "ListFunctionsByCodeSigningConfig", signing.list_functions),
            ("PUT", _SIGNING_OF, "PutFunctionCodeSigningConfig", signing.put_of),
            ("GET", _SIGNING_OF, "GetFunctionCodeSigningConfig", signing.get_of),
            ("DELETE", _SIGNING_OF, "DeleteFunctionCodeSigningConfig", signing.delete_of),
            ("GET", _RUNTIME, "GetRuntimeManagementConfig", runtime.get),
            ("PUT", _RUNTIME, "PutRuntimeManagementConfig", runtime.put),
        ):
            reader = handler if method == "GET" else self._alone(handler)
            self._router.add(method, path, _Read(f"lambda:{action}", reader))

    def _add_mappings(self) -> None:
        made, mappings = self._services.made_mappings, self._mappings
        for method, path, action, handler in (
            ("GET", _MAPPINGS, "ListEventSourceMappings", mappings.list),
            ("GET", _MAPPINGS + "/{uuid}", "GetEventSourceMapping", mappings.get),
            ("POST", _MAPPINGS, "CreateEventSourceMapping", mappings.create),
            ("PUT", _MAPPINGS + "/{uuid}", "UpdateEventSourceMapping", mappings.update),
            ("DELETE", _MAPPINGS + "/{uuid}", "DeleteEventSourceMapping", mappings.delete),
        ):
            is_offered = made is not None or method == "GET"
            reader = handler if is_offered else _not_offered(action)
            self._router.add(method, path, _Read(f"lambda:{action}", reader))

    def _add_tags(self) -> None:
        made, mappings = self._services.made, self._mappings
        sharing = None if made is None else SharingOperations(made, self._services.clock)
        for method, action, of_functions, of_mappings in (
            ("GET", "ListTags", self._reading.list_tags, mappings.list_tags),
            ("POST", "TagResource", None if sharing is None else sharing.tag, mappings.tag),
            ("DELETE", "UntagResource", None if sharing is None else sharing.untag, mappings.untag),
        ):
            handler = by_arn(of_functions or _not_offered(action), of_mappings)
            self._router.add(method, _TAGS, _Read(f"lambda:{action}", handler))

    def _add_writing(self, made: MadeFunctions, uploads: Uploads) -> None:
        services, safeguards = self._services, self._services.attached.safeguards
        writing = WriteOperations(
            made, uploads, safeguards, services.clock, roles=services.roles, has_memory_steps=services.has_memory_steps
        )
        editions = EditionOperations(made)
        sharing = SharingOperations(made, services.clock, roles=services.roles)
        concurrency = ConcurrencyOperations(
            made,
            services.clock,
            functions=services.functions,
            account_concurrency=services.account_concurrency,
            warmth=services.warmth,
        )
        urls = UrlOperations(
            services.attached.urls, made, self._reading, address=services.url_address, clock=services.clock
        )
        permissions = PermissionOperations(self._services.attached.policies, made, self._reading)
        handlers: dict[str, Reader] = {
            "DeleteFunction": writing.delete,
            "UpdateFunctionConfiguration": writing.update_configuration,
            "PublishVersion": editions.publish_version,
            "CreateAlias": editions.create_alias,
            "GetAlias": editions.get_alias,
            "UpdateAlias": editions.update_alias,
            "DeleteAlias": editions.delete_alias,
            "PutFunctionConcurrency": concurrency.put_reserved,
            "DeleteFunctionConcurrency": concurrency.delete_reserved,
            "PutProvisionedConcurrencyConfig": concurrency.put_provisioned,
            "GetProvisionedConcurrencyConfig": concurrency.get_provisioned,
            "DeleteProvisionedConcurrencyConfig": concurrency.delete_provisioned,
            "PutFunctionEventInvokeConfig": sharing.put_event_invoke,
            "UpdateFunctionEventInvokeConfig": sharing.update_event_invoke,
            "DeleteFunctionEventInvokeConfig": sharing.delete_event_invoke,
            "CreateFunctionUrlConfig": urls.create,
            "GetFunctionUrlConfig": urls.get,
            "UpdateFunctionUrlConfig": urls.update,
            "DeleteFunctionUrlConfig": urls.delete,
            "ListFunctionUrlConfigs": urls.list,
            "AddPermission": permissions.add,
            "RemovePermission": permissions.remove,
        }
        variants = {
            "GetProvisionedConcurrencyConfig": {
                "List": _Read("lambda:ListProvisionedConcurrencyConfigs", concurrency.list_provisioned)
            }
        }
        uploaders = {"CreateFunction": writing.create, "UpdateFunctionCode": writing.update_code}
        for method, path, action in _WRITING:
            if action in uploaders:
                self._router.add(method, path, _Upload(f"lambda:{action}", uploaders[action]))
            else:
                reader = _Read(f"lambda:{action}", handlers[action], variants.get(action, {}))
                self._router.add(method, path, reader)
        self._add_layers(LayerOperations(made, uploads, self._links, self._services.clock))

    def _add_layers(self, layers: LayerOperations) -> None:
        by_arn = {"find": _Read("lambda:GetLayerVersion", layers.get_by_arn)}
        handlers: dict[str, Reader] = {
            "ListLayers": layers.list_layers,
            "ListLayerVersions": layers.list_versions,
            "GetLayerVersion": layers.get,
            "DeleteLayerVersion": layers.delete,
            "AddLayerVersionPermission": layers.add_permission,
            "GetLayerVersionPolicy": layers.get_policy,
            "RemoveLayerVersionPermission": layers.remove_permission,
        }
        for method, path, action in _LAYERING:
            if action == "PublishLayerVersion":
                self._router.add(method, path, _Upload(f"lambda:{action}", layers.publish))
            else:
                variants = by_arn if action == "ListLayers" else {}
                self._router.add(method, path, _Read(f"lambda:{action}", handlers[action], variants))

    def _alone(self, handler: Reader) -> Reader:
        """Let a handler change what hangs on functions while nothing else changes: nothing is kept of one that goes."""

        async def answer(request: Request, caller: Caller) -> Answer:
            if self._services.made is None:
                return await handler(request, caller)
            async with self._services.made.changing():
                return await handler(request, caller)

        return answer


def _hash(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _not_offered(action: str, why: str = _ELSEWHERE) -> Reader:
    async def refuse(_request: Request, _caller: Caller) -> Answer:
        raise Refused("InvalidParameterValueException", f"{action} is not offered: {why}")

    return refuse


def _unusable(error: HttpError, request: Request) -> Refused:
    if error.status in (404, 405):
        text = f"{request.method[:20]} {request.path[:200]} is no operation of Lambda's API that is offered here"
        return Refused("UnknownOperationException", text, status=404, kind="")
    if error.status == 413:
        return Refused("RequestEntityTooLargeException", error.text, status=413)
    return Refused("ValidationException", error.text, status=error.status, kind="", headers=error.headers)
