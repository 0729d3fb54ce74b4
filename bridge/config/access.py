"""`[api]` and `[access_keys.X]`: who may call Lambda's API, and what each key allows."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from bridge.config.roles import declared_roles
from bridge.config.section import Section, listed
from bridge.config.values import PathValue, SecretReference, refuse
from bridge.registry.access import ACTION_PATTERN, AccessKey

if TYPE_CHECKING:
    from bridge.config.settings import Settings


def _checked_action(action: str) -> str:
    if not ACTION_PATTERN.match(action):
        refuse("must be an action or a pattern of actions, such as lambda:InvokeFunction or lambda:Get*")
    return action


class ApiSettings(Section):
    """`[api]`: Lambda's API on the api listener."""

    auth: Literal["sigv4", "none"] = Field(
        default="sigv4",
        description="sigv4: calls of Lambda's API are signed with an access key; none: anybody here may call it.",
    )
    key_file: PathValue | None = Field(
        default=None,
        description="Key that seals variables of functions the API makes; left out: STATE.key beside the state folder.",
    )

    code_connection: str = Field(
        default="",
        description="[connections.X] that code in S3 is read by; left out: the only one of type aws in the region.",
    )
    code_folder: PathValue | None = Field(
        default=None,
        description='Folder whose zips and folders may become code: S3Bucket = "local", S3Key the path in it.',
    )


class AccessKeySettings(Section):
    """A key that calls of Lambda's API are signed with."""

    secret: SecretReference = Field(description="The secret access key.")
    account: str = Field(
        default="", pattern=r"^([0-9]{12})?$", description="Account its caller sees, 12 digits; left out: the file's."
    )
    allow: tuple[Annotated[str, AfterValidator(_checked_action)], ...] = listed(
        "Actions and patterns of actions.", default=("lambda:*",), min_length=1, max_length=100
    )
    organization: str = Field(
        default="",
        pattern=r"^(o-[a-z0-9]{10,32})?$",
        description="Organization of its account, for policies that ask for one (PrincipalOrgID).",
    )


def key_file(settings: "Settings") -> Path:
    """Return the file whose keys seal variables: by default beside the state folder, never in it."""
    state = Path(os.path.abspath(settings.state))  # noqa: PTH100 - resolve() would follow links that an operator swaps
    return settings.api.key_file or state.with_name(state.name + ".key")


def access_keys(settings: "Settings") -> dict[str, AccessKey]:
    """Return the keys of a file by their id; secrets are revealed here, for the check of signatures."""
    return {
        key_id: AccessKey(
            id=key_id,
            secret=key.secret.reveal(),
            account=key.account or settings.account,
            allow=key.allow,
            organization=key.organization,
        )
        for key_id, key in settings.access_keys.items()
    }


def hidden_ports(settings: "Settings") -> tuple[int, ...]:
    """Return the ports that functions must not connect to: the api's, unless somebody may call Lambda's API there.

    A function that does calls it as anybody else would: the admin API asks for a token that no function can read.
    """
    port = settings.listen.api.port
    roles = declared_roles(settings).values()  # their functions get keys of their own
    is_called = settings.api.auth == "none" or bool(settings.access_keys) or any(r.reaches("lambda") for r in roles)
    return (port,) if port and not is_called else ()
