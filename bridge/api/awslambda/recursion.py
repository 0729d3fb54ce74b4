"""PutFunctionRecursionConfig and GetFunctionRecursionConfig of Lambda's API."""

from bridge.api.awslambda.errors import invalid
from bridge.api.awslambda.names import FunctionName, read_name
from bridge.api.awslambda.reading import ReadOperations
from bridge.api.awslambda.shapes import Body
from bridge.api.http import Answer, Request, json_answer
from bridge.registry.access import Caller
from bridge.registry.recursion import ALLOW, TERMINATE, Recursion


class RecursionOperations:
    """Handlers of the recursion config, of functions made or declared.

    Args:
        recursion: what is kept.
        reading: finds functions.
    """

    def __init__(self, recursion: Recursion, reading: ReadOperations) -> None:
        self._recursion = recursion
        self._reading = reading

    async def get(self, request: Request, caller: Caller) -> Answer:
        """API_GetFunctionRecursionConfig."""
        return json_answer({"RecursiveLoop": self._recursion.mode(self._named(request, caller).name)})

    async def put(self, request: Request, caller: Caller) -> Answer:
        """API_PutFunctionRecursionConfig."""
        body = Body.of(await request.body())
        name = self._named(request, caller)
        body.text("RecursiveLoop", required=True)
        mode = body.choice("RecursiveLoop", (ALLOW, TERMINATE)) or TERMINATE
        body.finish()
        await self._recursion.set_mode(name.name, mode)
        return json_answer({"RecursiveLoop": mode})

    def _named(self, request: Request, caller: Caller) -> FunctionName:
        name = read_name(request.params["fn"], caller)
        if name.qualifier:
            raise invalid("The recursion config is the function's: give its name or ARN without a version or alias.")
        self._reading.find(name, caller)
        return name
