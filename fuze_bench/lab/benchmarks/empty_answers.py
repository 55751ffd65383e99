"""The API's server without the API: it reads the JSON that it is sent, and answers with an empty object.

python -m fuze_bench.lab.benchmarks.empty_answers PORT
"""

from __future__ import annotations

import sys

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fuze_bench.pipeline.api.app import run


async def empty(request: Request) -> Response:
    """The answer."""
    msgspec.json.decode(await request.body())
    return Response(b"{}", media_type="application/json")


if __name__ == "__main__":
    run(Starlette(routes=[Route("/", empty, methods=["POST"])]), "127.0.0.1", int(sys.argv[1]))
