"""`fuze-bench doctor`: what is wrong, and what to do."""

from __future__ import annotations

import click

from fuze_bench.pipeline.worker_command import settings_of_short_command


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON, with the figures.")
def doctor(as_json: bool) -> None:
    """Look at Redis, workers, queues, database, bookmarks, model and tokens; exit code 1 if anything is wrong."""
    import msgspec

    from fuze_bench.pipeline.diagnosis import diagnose
    from fuze_bench.pipeline.redis_server import with_running_redis

    findings = []
    for finding in diagnose(with_running_redis(settings_of_short_command())):
        findings.append(finding)
        if not as_json:
            remedy = f" → {finding.remedy}" if finding.remedy else ""
            click.echo(f"{'ok   ' if finding.ok else 'WRONG'} {finding.name:<18} {finding.detail}{remedy}")
    is_well = all(finding.ok for finding in findings)
    if as_json:
        click.echo(msgspec.json.encode({"ok": is_well, "findings": findings}).decode())
    if not is_well:
        raise click.exceptions.Exit(1)
