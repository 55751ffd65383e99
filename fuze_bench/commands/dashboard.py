"""`fuze-bench dashboard`: the queues, workers and jobs in a browser."""

from __future__ import annotations

import click

from fuze_bench.pipeline.worker_command import settings_of_short_command


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=9181, show_default=True, help="0: any.")
def dashboard(port: int) -> None:
    """Show queues, workers and jobs in a browser (rq-dashboard), on this machine only; Ctrl-C stops it."""
    from fuze_bench.pipeline.redis_server import require_running_redis
    from fuze_bench.processes import free_port

    settings = require_running_redis(settings_of_short_command())
    assert settings.redis_url is not None
    port = free_port(port=port)
    try:
        from fuze_bench.dashboard import serve_dashboard
    except ImportError:
        raise click.ClickException(
            "the dashboard is not installed: pip install 'fuze-bench[dashboard]'"
        ) from None
    click.echo(f"RQ dashboard at http://127.0.0.1:{port}/ (Ctrl-C stops it)")
    serve_dashboard(settings.redis_url, port)
