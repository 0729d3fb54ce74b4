"""`bridge generate-event` of HTTP requests, and of bodies that are events: Cognito's triggers, Alexa's requests."""

import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import click

from bridge.cli.generate_values import Data, Milliseconds, Pair, check_are_texts
from bridge.core.function import ACCOUNT_DEFAULT, REGION_DEFAULT
from bridge.events import generate_http
from bridge.events.http import TooManyParameters

_Command = Callable[..., None]
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def _request_options(command: _Command) -> _Command:
    """Add what describes a request."""
    for option in reversed((
        click.option(
            "--method", default="POST", show_default=True, metavar="METHOD",
            shell_complete=lambda _context, _param, begun: [m for m in _METHODS if m.startswith(begun.upper())],
        ),
        click.option("--path", default="/", show_default=True, metavar="PATH", help="Percent-encoded, as it is sent."),
        click.option("--body", type=Data(), metavar="TEXT|@FILE|-", help='Else {"id": 1} for POST, PUT and PATCH.'),
        click.option("--header", "headers", type=Pair(), multiple=True, metavar="NAME=VALUE", help="May be repeated."),
        click.option("--query", type=Pair(), multiple=True, metavar="NAME=VALUE", help="May be repeated."),
        click.option("--source-ip", default="127.0.0.1", show_default=True, metavar="ADDRESS"),
        click.option("--timestamp", type=Milliseconds(), metavar="TIME|MS", help="Else now."),
        click.option("--request-id", default="", metavar="ID", help="Else a new one."),
    )):  # fmt: skip
        command = option(command)
    return command


def _place_options(command: _Command) -> _Command:
    """Add where on AWS it would be."""
    command = click.option("--account", default=ACCOUNT_DEFAULT, show_default=True, metavar="ID")(command)
    return click.option("--region", default=REGION_DEFAULT, show_default=True, metavar="NAME")(command)


def _print(options: dict[str, Any], make: Callable[..., bytes], **more: Any) -> None:
    """Print the event that `make` makes of the request that the options describe."""
    check_are_texts(options)
    method = options["method"].upper()
    body = options["body"]
    if body is None:
        body = b'{"id": 1}' if method in ("POST", "PUT", "PATCH") else b""
    if not options["path"].startswith("/"):
        raise click.BadParameter("begins with /", param_hint="--path")
    request = generate_http.WebhookRequest(
        method=method,
        path=options["path"],
        query=options["query"],
        headers=options["headers"],
        body=body,
        source_ip=options["source_ip"],
    )
    received_at = time.time() if options["timestamp"] is None else options["timestamp"] / 1000
    request_id = options["request_id"] or str(uuid.uuid4())
    try:
        event = make(request, request_id=request_id, received_at=received_at, **more)
    except TooManyParameters as error:
        raise click.BadParameter(str(error), param_hint="--query") from error
    except (OverflowError, OSError) as error:
        raise click.BadParameter("is beyond what a calendar holds", param_hint="--timestamp") from error
    click.echo(event)


@click.command("webhook")
@_request_options
def _webhook(**options: Any) -> None:
    """Print the event of an HTTP request (API Gateway v2, function URL)."""
    _print(options, generate_http.webhook_event)


@click.command("apigateway-v2")
@_request_options
def _apigateway_v2(**options: Any) -> None:
    """Print the event of an HTTP request (API Gateway v2, function URL)."""
    _print(options, generate_http.webhook_event)


@click.command("apigateway-v1")
@_request_options
@click.option(
    "--binary-media-type", "binary", multiple=True, metavar="TYPE", help="Bodies of it are base64; may be repeated."
)
@_place_options
def _apigateway_v1(**options: Any) -> None:
    """Print the event of an HTTP request (API Gateway's REST APIs, format 1.0)."""
    _print(
        options,
        generate_http.rest_webhook_event,
        account_id=options["account"],
        region=options["region"],
        binary=options["binary"],
    )


@click.command("alb")
@_request_options
@click.option("--multi-value-headers", "multi_value", is_flag=True, help="All values of headers and query, in lists.")
@_place_options
def _alb(**options: Any) -> None:
    """Print the event of an HTTP request (Application Load Balancer)."""
    _print(
        options,
        generate_http.alb_webhook_event,
        account_id=options["account"],
        region=options["region"],
        multi_value=options["multi_value"],
    )


@click.command("cognito")
@click.option(
    "--trigger", type=click.Choice(list(generate_http.TRIGGERS)), default="PreSignUp_SignUp", show_default=True,
    metavar="SOURCE", help="As triggerSource names it.",
)  # fmt: skip
@click.option(
    "--attribute", "attributes", type=Pair(), multiple=True, default=[("email", "user@example.com")],
    metavar="NAME=VALUE", help="Of the user; may be repeated.",
)  # fmt: skip
@click.option("--user-name", default="user", show_default=True, metavar="NAME")
@click.option("--user-pool-id", default=f"{REGION_DEFAULT}_EXAMPLE", show_default=True, metavar="ID")
@click.option("--client-id", default="example", show_default=True, metavar="ID", help="Of the app.")
def _cognito(**options: Any) -> None:
    """Print the event of a trigger of a Cognito user pool."""
    check_are_texts(options)
    click.echo(
        generate_http.cognito_event(
            options["trigger"],
            attributes=options["attributes"],
            user_name=options["user_name"],
            user_pool_id=options["user_pool_id"],
            client_id=options["client_id"],
        )
    )


@click.command("alexa")
@click.option("--intent", default="", metavar="NAME", help="Else a launch without one.")
@click.option("--slot", "slots", type=Pair(), multiple=True, metavar="NAME=VALUE", help="Of the intent; repeatable.")
@click.option("--skill-id", default="amzn1.ask.skill.EXAMPLE", show_default=True, metavar="ID")
@click.option("--locale", default="en-US", show_default=True, metavar="LOCALE")
@click.option("--timestamp", type=Milliseconds(), metavar="TIME|MS", help="Else now.")
@click.option("--request-id", default="", metavar="ID", help="Else a new one.")
def _alexa(**options: Any) -> None:
    """Print the request of a custom skill, as a route of format raw takes it."""
    check_are_texts(options)
    if options["slots"] and not options["intent"]:
        raise click.UsageError("--slot needs --intent.")
    at = time.time() if options["timestamp"] is None else options["timestamp"] / 1000
    try:
        moment = datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError) as error:
        raise click.BadParameter("is beyond what a calendar holds", param_hint="--timestamp") from error
    click.echo(
        generate_http.alexa_event(
            intent=options["intent"],
            slots=options["slots"],
            skill_id=options["skill_id"],
            locale=options["locale"],
            request_id=options["request_id"] or str(uuid.uuid4()),
            time=moment,
        )
    )


HTTP_COMMANDS: Final = (_webhook, _apigateway_v2, _apigateway_v1, _alb, _cognito, _alexa)
