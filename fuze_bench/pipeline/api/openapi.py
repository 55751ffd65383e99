"""The API's OpenAPI description, made from the types that validate it."""

from __future__ import annotations

from typing import Any

import msgspec

import fuze_bench
from fuze_bench.pipeline.api import messages
from fuze_bench.pipeline.api.sessions import COOKIE
from fuze_bench.pipeline.api.sessions import PATH as SESSION_PATH
from fuze_bench.pipeline.bookmarks import LARGEST_ID, Bookmark, Reason, Status
from fuze_bench.pipeline.job_states import JobState
from fuze_bench.pipeline.settings import Settings


def describe(settings: Settings) -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    types = (
        messages.QuickSave,
        messages.QuickSaved,
        messages.Import,
        messages.ImportedPage,
        messages.Imported,
        Bookmark,
        messages.BookmarkPage,
        JobState,
        messages.Queues,
        messages.Health,
        messages.SignIn,
        messages.SignedIn,
        messages.Problem,
    )
    references, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    ref = {kind.__name__: reference for kind, reference in zip(types, references, strict=True)}
    _add_limits(schemas["QuickSave"]["properties"], settings)
    _describe_import(schemas["Import"]["properties"]["bookmarks"], ref["ImportedPage"], settings)
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "fuze_bench",
            "version": fuze_bench.__version__,
            "description": "Saves bookmarks at once and processes them in the background.",
        },
        "paths": _paths(ref),
        "components": {"schemas": schemas},
    }
    _add_refusals(document["paths"], ref["Problem"])
    if settings.api_tokens is not None:
        _add_sign_in(document, ref)
    return document


def _add_limits(properties: dict[str, Any], settings: Settings) -> None:
    properties["url"]["maxLength"] = settings.url_max_chars
    # An absolute http(s) URL without credentials; the parser that decides is the WHATWG one.
    properties["url"]["format"] = "uri"
    for name, limit in (("title", settings.title_max_chars), ("description", settings.description_max_chars)):
        for option in properties[name]["anyOf"]:
            if option.get("type") == "string":
                option["maxLength"] = limit


def _describe_import(bookmarks: dict[str, Any], page: dict[str, Any], settings: Settings) -> None:
    bookmarks["maxItems"] = settings.import_max_items
    # Anything is taken; what is no page is refused by itself.
    bookmarks["items"] = {"anyOf": [page, {}]}


def _add_refusals(paths: dict[str, Any], problem: dict[str, Any]) -> None:
    """What the guard answers, whatever is asked for."""
    for path in paths.values():
        for method, operation in path.items():
            statuses = (400, 421) if method == "get" else (400, 403, 421)
            operation["responses"] |= _problems(problem, *statuses)


def _add_sign_in(document: dict[str, Any], ref: dict[str, Any]) -> None:
    """What there is where one has to say who one is."""
    document["components"]["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer"},
        "session": {"type": "apiKey", "in": "cookie", "name": COOKIE},
    }
    problem, signed_in = ref["Problem"], _answer("Whose session it is", ref["SignedIn"])
    for name, path in document["paths"].items():
        for method, operation in path.items() if name.startswith("/api/") else ():
            operation["security"] = [{"token": []}, {"session": []}]
            operation["responses"] |= _problems(
                problem, *((401, 503) if method == "get" else (401, 429, 503))
            )
    document["paths"][SESSION_PATH] = {
        "get": {
            "summary": "Who is signed in",
            "responses": {"200": signed_in, **_problems(problem, 400, 421, 503)},
        },
        "post": {
            "summary": "Exchange a token for the cookie of a session",
            "requestBody": {"required": True, "content": _json(ref["SignIn"])},
            "responses": {
                "200": signed_in,
                **_problems(problem, 400, 401, 403, 413, 415, 421, 422, 503),
            },
        },
        "delete": {
            "summary": "End the session",
            "responses": {
                "204": {"description": "It is ended"},
                **_problems(problem, 400, 403, 421, 503),
            },
        },
    }


def _paths(ref: dict[str, Any]) -> dict[str, Any]:
    bookmark_id = _parameter(
        "id", "path", {"type": "integer", "minimum": 1, "maximum": LARGEST_ID}, required=True
    )
    page = [
        _parameter("status", "query", {"type": "string", "enum": [str(status) for status in Status]}),
        _parameter("reason", "query", {"type": "string", "enum": [str(reason) for reason in Reason]}),
        _parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}),
        _parameter("after", "query", {"type": "integer", "minimum": 1, "maximum": LARGEST_ID}),
    ]
    job_id = _parameter("id", "path", {"type": "string", "minLength": 1}, required=True)
    body = {"required": True, "content": _json(ref["QuickSave"])}
    saved, problem = ref["QuickSaved"], ref["Problem"]
    return {
        "/api/bookmarks/quick-save": {
            "post": {
                "summary": "Save a page and have it processed in the background",
                "requestBody": body,
                "responses": {
                    "201": _answer("Saved", saved),
                    "200": _answer("Known already", saved),
                    **_problems(problem, 400, 413, 415, 422, 503),
                },
            }
        },
        "/api/bookmarks/import": {
            "post": {
                "summary": "Save many pages, each by itself, behind all others",
                "requestBody": {
                    "required": True,
                    "content": {
                        **_json(ref["Import"]),
                        "text/plain": {"schema": {"type": "string", "description": "One address a line"}},
                        "text/csv": {"schema": {"type": "string", "description": "With a column url"}},
                        "text/html": {"schema": {"type": "string", "description": "A browser's export"}},
                    },
                },
                "responses": {
                    "200": _answer("What became of each", ref["Imported"]),
                    **_problems(problem, 400, 413, 415, 422, 503),
                },
            }
        },
        "/api/bookmarks": {
            "get": {
                "summary": "Bookmarks, newest first",
                "parameters": page,
                "responses": {
                    "200": _answer("A page of them", ref["BookmarkPage"]),
                    **_problems(problem, 422, 503),
                },
            }
        },
        "/api/bookmarks/{id}": {
            "get": {
                "summary": "One bookmark",
                "parameters": [bookmark_id],
                "responses": {
                    "200": _answer("The bookmark", ref["Bookmark"]),
                    **_problems(problem, 404, 503),
                },
            },
            "delete": {
                "summary": "Forget a bookmark, also in the middle of its job",
                "parameters": [bookmark_id],
                "responses": {"204": {"description": "Forgotten"}, **_problems(problem, 404, 503)},
            },
        },
        "/api/bookmarks/{id}/reprocess": {
            "post": {
                "summary": "Process a bookmark again; what is stored stays until something better is found",
                "parameters": [bookmark_id],
                "responses": {
                    "202": _answer("On its way", saved),
                    **_problems(problem, 404, 503),
                },
            }
        },
        "/api/jobs/{id}": {
            "get": {
                "summary": "The state of a job",
                "parameters": [job_id],
                "responses": {"200": _answer("The job", ref["JobState"]), **_problems(problem, 404, 503)},
            }
        },
        "/api/queues": {
            "get": {
                "summary": "How many jobs wait",
                "responses": {"200": _answer("The queues, the most urgent first", ref["Queues"])},
            }
        },
        "/healthz": {
            "get": {"summary": "The process lives", "responses": {"200": _answer("It does", ref["Health"])}}
        },
        "/metrics": {
            "get": {
                "summary": "Counts and gauges for Prometheus",
                "responses": {
                    "200": {
                        "description": "All of them",
                        "content": _json({"type": "string"}, "text/plain")
                        | _json({"type": "string"}, "application/openmetrics-text"),
                    }
                },
            }
        },
        "/readyz": {
            "get": {
                "summary": "Saves can be taken",
                "responses": {
                    "200": _answer("They can", ref["Health"]),
                    "503": _answer("They cannot", ref["Health"]),
                },
            }
        },
    }


def _parameter(name: str, where: str, schema: dict[str, Any], *, required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": where, "required": required, "schema": schema}


def _json(schema: dict[str, Any], media_type: str = "application/json") -> dict[str, Any]:
    return {media_type: {"schema": schema}}


def _answer(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": _json(schema)}


def _problems(schema: dict[str, Any], *statuses: int) -> dict[str, Any]:
    return {
        str(status): {"description": "A problem", "content": _json(schema, "application/problem+json")}
        for status in statuses
    }
