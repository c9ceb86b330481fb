"""The routes of the server as an OpenAPI document, and the same as a page."""

from html import escape
from typing import Any

from src.serve.protocol import V2_INPUT, V2_MODEL, V2_OUTPUTS
from src.serve.request import Limits

JSON = "application/json"
ERROR_TYPES = [  # the first four are those of text-embeddings-inference
    "Validation",
    "Overloaded",
    "Backend",
    "Unhealthy",
    "Unauthorized",
    "NotFound",
    "MethodNotAllowed",
    "Misdirected",
    "Deadline",
]
ERRORS = {
    400: "The request is no HTTP that the server knows",
    401: "No key, or a wrong one",
    404: "No such model",
    408: "The body took too long to come",
    413: "Too many bytes, texts or characters, or a text longer than the model reads",
    415: "Another kind of body",
    421: "A host that the server does not answer for",
    422: "The body is not as described; the message names the field",
    424: "The model broke on the texts",
    429: "Too many texts are waiting; Retry-After says for how many seconds",
    503: "The server is not well",
    504: "The deadline passed before the answer",
}


def document(limits: Limits, models: list[str]) -> dict[str, Any]:
    """The document, with the limits and models of this server."""
    text = {"type": "string", "description": f"At most {limits.max_characters} characters."}
    single = {"type": "array", "items": text, "minItems": 1, "maxItems": 1}
    many = {"description": f"At most {limits.max_items} texts."}
    batch = {"type": "array", "items": single, "minItems": 1} | many
    flag = {"type": ["boolean", "null"]}
    model = {"type": ["string", "null"], "enum": [*models, None]}
    predict = _object(
        {
            "inputs": {"oneOf": [text, single, batch]},
            "raw_scores": flag | {"description": "Logits in place of probabilities."},
            "truncate": flag
            | {"description": "False: a text that is longer than the model reads gets 413."},
            "truncation_direction": {"type": "string", "enum": ["Right", "right"]},
            "model": model | {"description": "Another model than the first."},
        },
        "inputs",
    ) | {"additionalProperties": True}
    texts = {"type": "array", "items": text} | many
    parameters = _object(
        {
            "function_to_apply": {
                "type": ["string", "null"],
                "enum": ["softmax", "sigmoid", "none", None],
            },
            "top_k": {"type": ["integer", "null"], "minimum": 1},
        }
    )
    hub = _object(
        {
            "inputs": {"oneOf": [text, texts]},
            "parameters": parameters | {"type": ["object", "null"]},
            "options": {"type": ["object", "null"]},
        },
        "inputs",
    )
    explain = _object({"inputs": {"oneOf": [text, single]}, "model": model}, "inputs")
    tensor = {
        "type": "object",
        "required": ["name", "datatype", "shape", "data"],
        "properties": {
            "name": {"const": V2_INPUT},
            "datatype": {"const": "BYTES"},
            "shape": {
                "type": "array",
                "items": {"type": "integer", "minimum": 0},
                "minItems": 1,
                "maxItems": 2,
            },
            "data": {"type": "array", "items": text},
            "parameters": {"type": ["object", "null"]},
        },
    }
    output = {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"enum": list(V2_OUTPUTS)},
            "parameters": {"type": ["object", "null"]},
        },
    }
    infer = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": ["string", "null"]},
            "parameters": {"type": ["object", "null"]},
            "inputs": {"type": "array", "items": tensor, "minItems": 1, "maxItems": 1},
            "outputs": {"type": ["array", "null"], "items": output},
        },
    }
    prediction = _object(
        {"score": {"type": "number"}, "label": {"type": "string"}}, "score", "label"
    )
    ranking = {"type": "array", "items": prediction}
    rankings = {"type": "array", "items": ranking}
    name = _parameter("name", "path", {"type": "string", "enum": models})
    upload = [
        _parameter("model", "query", {"type": "string", "enum": models}),
        _parameter("text_column", "query", {"type": "string", "default": "text"}),
        _parameter("prefix", "query", {"type": "string", "default": ""}),
    ]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Pedigree",
            "version": "1",
            "description": "Text classification with exported models.",
        },
        "paths": {
            "/predict": _post(
                "predict",
                "Classify a text, or a batch of texts, as text-embeddings-inference does. The "
                "header X-Truncated names the texts of which only the start was read.",
                predict,
                {"anyOf": [ranking, rankings]},
            ),
            "/": _post("hub", "The same as Hugging Face's inference API does.", hub, rankings)
            | _get("index", "A page to try the models, or this one.", kind="text/html"),
            "/models/{name}": _post(
                "hub_model", "The same with a model by name.", hub, rankings, [name]
            ),
            "/explain": _post(
                "explain",
                "How the probability of the label changes when each word is left out.",
                explain,
                {"type": "object"},
            ),
            "/score": _post(
                "score",
                "Give each row of a CSV file, which is the body, a label and a score.",
                {"type": "string"},
                {"type": "string"},
                upload,
                kind="text/csv",
            ),
            "/models": _get("models", "The models and their labels.", {"type": "array"}),
            "/models/{name}/card": _get("card", "What is known of a model.", parameters=[name]),
            "/info": _get("info", "What text-embeddings-inference says of itself."),
            "/v2": _get("v2", "Open Inference Protocol: the server."),
            "/v2/health/live": _get("live", "Whether the server runs."),
            "/v2/health/ready": _get("ready", "Whether the models are loaded."),
            **{
                path + rest: operation
                for path, ending in zip(V2_MODEL, ("", "_version"), strict=True)
                for rest, operation in _v2_model(infer, name, ending).items()
            },
            "/healthz": _get("healthz", "Whether the server runs."),
            "/health": _get("health", "Whether the server runs."),
            "/openapi.json": _get("openapi", "This document."),
            "/docs": _get("docs", "This page.", kind="text/html"),
            "/metrics": _get("metrics", "Figures for Prometheus.", None, kind="text/plain"),
        },
        "components": {
            "schemas": {
                "Error": _object(
                    {"error": {"type": "string"}, "error_type": {"enum": ERROR_TYPES}},
                    "error",
                    "error_type",
                )
            },
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _v2_model(infer: dict[str, Any], name: dict[str, Any], ending: str) -> dict[str, Any]:
    """What there is below a model of the Open Inference Protocol."""
    return {
        "": _get(f"v2_model{ending}", "The tensors of a model.", parameters=[name]),
        "/ready": _get(f"v2_ready{ending}", "Whether it is served.", parameters=[name]),
        "/infer": _post(
            f"v2_infer{ending}",
            "Classify a tensor of texts; binary tensors too, by the header "
            "Inference-Header-Content-Length.",
            infer,
            {"type": "object"},
            [name],
        ),
    }


def page(described: dict[str, Any]) -> str:
    """The document as a page of HTML, without scripts."""
    parts = [
        f"<h1>{escape(described['info']['title'])}</h1>",
        f"<p>{escape(described['info']['description'])} The same for programs: "
        '<a href="openapi.json">openapi.json</a>.</p>',
    ]
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            parts.append(f"<h2><code>{method.upper()} {escape(path)}</code></h2>")
            parts.append(f"<p>{escape(operation['summary'])}</p>")
            content = operation.get("requestBody", {}).get("content", {})
            for kind, media in content.items():
                fields = media["schema"].get("properties", {})
                needed = media["schema"].get("required", [])
                listed = ", ".join(
                    f"<code>{escape(field)}</code>{'' if field in needed else ' (optional)'}"
                    for field in fields
                )
                parts.append(f"<p>Body: {escape(kind)}{': ' if listed else ''}{listed}</p>")
            statuses = [
                f"<li>{status}: {escape(response['description'])}</li>"
                for status, response in operation["responses"].items()
            ]
            parts.append(f"<ul>{''.join(statuses)}</ul>")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>Routes</title></head>'
        f"<body>{''.join(parts)}</body></html>"
    )


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    result: dict[str, Any] = {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }
    return result | ({"required": list(required)} if required else {})


def _parameter(name: str, place: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": schema}


def _responses(schema: dict[str, Any] | None, kind: str, errors: tuple[int, ...]) -> dict[str, Any]:
    error = {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {
        "200": {"description": "The answer", "content": {kind: {"schema": schema or {}}}},
        **{str(code): {"description": ERRORS[code], "content": error} for code in errors},
    }


def _get(
    name: str,
    summary: str,
    schema: dict[str, Any] | None = None,
    *,
    parameters: list[dict[str, Any]] | None = None,
    kind: str = JSON,
) -> dict[str, Any]:
    errors = (401, 404, 421) if parameters else (401, 421)
    return {
        "get": {
            "operationId": name,
            "summary": summary,
            "parameters": parameters or [],
            "responses": _responses(schema, kind, (*errors, 503) if "health" in name else errors),
        }
    }


def _post(
    name: str,
    summary: str,
    body: dict[str, Any],
    answer: dict[str, Any],
    parameters: list[dict[str, Any]] | None = None,
    *,
    kind: str = JSON,
) -> dict[str, Any]:
    errors = (401, 404, 408, 413, 415, 421, 422, 424, 429, 504)
    return {
        "post": {
            "operationId": name,
            "summary": summary,
            "parameters": parameters or [],
            "requestBody": {"required": True, "content": {kind: {"schema": body}}},
            "responses": _responses(answer, kind, errors),
        }
    }
