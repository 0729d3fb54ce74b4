"""The endpoints of the key file: who holds what is sealed, and the rotation while the daemon runs."""

import asyncio

import structlog

from bridge.api.fields import Fields
from bridge.api.http import Answer, HttpError, Request, json_answer
from bridge.api.services import Services
from bridge.core.errors import SealBroken
from bridge.registry.made import MadeFunction
from bridge.registry.rotation import holders, rotate

log = structlog.get_logger("bridge.api")


class KeyEndpoints:
    """Handlers of `/admin/v1/keys`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def show(self, request: Request) -> Answer:
        """The keys, and how many values each holds."""
        Fields.of_query(request).finish()
        if (made := self._services.made) is None:
            return json_answer({"file": "", "keys": [], "unreadable": 0})
        seal = made.sealing.seal
        try:
            found, unreadable = await asyncio.to_thread(holders, seal, made.all_kept(), arn_of=made.home.arn)
        except SealBroken as error:
            raise HttpError(409, str(error)) from error
        return json_answer({"file": str(seal.path), "keys": found, "unreadable": unreadable})

    async def rotate(self, request: Request) -> Answer:
        """A new key, every value's own key wrapped by it, and the old ones gone; functions run on."""
        (await Fields.of_body(request)).finish()
        if (made := self._services.made) is None:
            raise HttpError(409, "nothing is sealed here: Lambda's API makes no functions")

        async def save(_before: MadeFunction, after: MadeFunction) -> None:
            await made.save(after, runs=False)  # what runs is what ran: variables and revision are the same

        async with made.changing():
            try:
                done = await rotate(made.sealing.seal, made.all_kept(), arn_of=made.home.arn, save=save)
            except SealBroken as error:
                raise HttpError(409, str(error)) from error
        if done.key is not None:
            log.info(
                "keys_rotated", key=done.key.id, rewrapped=done.rewrapped, dropped=done.dropped,
                unreadable=done.unreadable, resumed=done.resumed,
            )  # fmt: skip
        return json_answer(done.as_dict())
