"""Greets whoever is named in the body's JSON, {"name": "Ada"}, or in the query, ?name=Ada."""

import base64
import json


def handler(event, context):
    body = event.get("body") or "{}"
    if event.get("isBase64Encoded"):
        body = base64.b64decode(body)
    query = event.get("queryStringParameters") or {}
    name = query.get("name") or json.loads(body).get("name", "world")
    print(f"greeting {name}")
    return {"message": f"Hello, {name}!"}
