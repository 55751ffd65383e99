"""quick-save and the reading side over HTTP: Starlette, msgspec, uvicorn."""

from fuze_bench.pipeline.api.app import create_app, serve

__all__ = ["create_app", "serve"]
