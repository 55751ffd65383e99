"""`fuze-bench up` and `fuze-bench api`: start things and keep them running."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import click

from fuze_bench.commands.saving import items_of
from fuze_bench.pipeline.settings import DEFAULT_KIND, Kind
from fuze_bench.pipeline.worker_command import log_format_option, settings_and_logs


@click.command()
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="How many workers.")
@click.option(
    "--kind", type=click.Choice([str(k) for k in Kind]), default=str(DEFAULT_KIND), show_default=True
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Of the API; 0: any."
)
@click.option(
    "--origin-port",
    type=click.IntRange(0, 65535),
    help="Of the site to fetch from; 0: any.  [default: the next port]",
)
@click.option(
    "--pages",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of HTML for the origin to serve.  [default: the shipped corpus]",
)
@click.option(
    "--urls",
    type=click.File("rb"),
    help="Addresses to save at the start: one a line, CSV, or a bookmark export.",
)
@click.option(
    "--latency-ms", type=click.IntRange(min=0), default=100, show_default=True, help="Of the origin."
)
@log_format_option
def up(
    workers: int,
    kind: str,
    port: int,
    origin_port: int | None,
    pages: Path | None,
    urls: BinaryIO | None,
    latency_ms: int,
    log_format: str | None,
) -> None:
    """Start Redis, API, workers and a site to fetch from; Ctrl-C stops all of it.

    What they log goes to files in the data folder's `logs`.
    """
    from fuze_bench.up import run_up

    run_up(
        settings_and_logs(log_format, text_level="WARNING"),
        workers=workers,
        kind=Kind(kind),
        port=port,
        origin_port=origin_port if origin_port is not None or port == 0 else port + 1,
        pages=pages,
        items=items_of(urls),
        latency_ms=latency_ms,
    )


@click.command()
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Beyond this machine only with FUZE_API_TOKENS."
)
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True)
@log_format_option
def api(host: str, port: int, log_format: str | None) -> None:
    """Serve quick-save and the reading side over HTTP."""
    from fuze_bench.pipeline.api import serve
    from fuze_bench.pipeline.redis_server import with_running_redis
    from fuze_bench.processes import free_port

    settings = with_running_redis(settings_and_logs(log_format))
    serve(settings, host, free_port(host, port))
