"""RQ's own tests of its workers, run against the batch worker: `python tests/rqs_own_tests.py [ARCHIVE]`.

They come with RQ's source distribution, which pip fetches if it is not given; the installed RQ is what is tested. `Worker` and `SimpleWorker`
are the batch worker in them. What does not pass is listed here with its reason; anything else that fails, and anything
listed that passes, makes the exit code 1.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

import click

from fuze_bench.pipeline.redis_server import find_binary
from fuze_bench.processes import free_port

FILES = (
    "worker callbacks commands dependencies executions group intermediate_queue job_dependency rate_limit registry"
    " repeat results retry timeouts webhooks worker_registration job scheduler queue"
).split()

_INSIDE = "it replaces functions in the worker's process, and the jobs run in a child of it"
_TAKES_A_BATCH = "it calls dequeue_job_and_maintain_ttl by itself, which gives a batch here and not a job"
_CLAIMED = "what is dequeued is claimed at once here: the job is `started`, not `queued`"
NOT_PASSED = {
    "TestWorker::test_deserializing_failure_is_handled": _TAKES_A_BATCH,
    "TestWorker::test_job_dependency_race_condition": "it counts calls of execute_job, which runs many jobs here",
    "TestWorker::test_log_job_description_on_dequeue_false": "it reads arguments of a log call at level WARNING",
    "TestWorker::test_log_job_description_on_dequeue_true": "it reads arguments of a log call at level WARNING",
    "TestWorker::test_work_via_simpleworker": "it wants the job in the worker's own process",
    "TestWorkerSubprocess::test_run_access_self": "it fails with RQ's own worker outside RQ's checkout",
    "TestWorkerSubprocess::test_run_scheduled_access_self": "it fails with RQ's own worker outside RQ's checkout",
    "TestWorkerSubprocess::test_run_empty_queue": "it starts `rq worker` on port 6379",
    "TestQueue::test_custom_connection_pool": "it makes a pool of its own, which leads to port 6379",
    "TestIntermediateQueue::test_cleanup_intermediate_queue": _CLAIMED,
    "TestIntermediateQueue::test_cleanup_intermediate_queue_in_maintenance": _CLAIMED,
    "TestIntermediateQueue::test_no_cleanup_while_in_started_queue": _CLAIMED,
    "TestQueue::test_intermediate_queue": _CLAIMED,
    "TestRateLimitEnqueue::test_release_after_aborted_immediate_repeat": _INSIDE,
    "TestWorkerRepeat::test_repeat_state_survives_transaction_retry": _INSIDE,
    "WorkerWebhookTestCase::test_retry_exhausted_fires_failed_once": _INSIDE,
    "WorkerWebhookTestCase::test_retry_then_success_skips_failed": _INSIDE,
    "WorkerWebhookTestCase::test_return_based_retry_exhaustion_fires_failed": _INSIDE,
    "WorkerWebhookTestCase::test_terminal_status_fires_only_matching_webhook": _INSIDE,
}

_CONFTEST = """
import functools, os, redis, rq, rq.worker
from fuze_bench.pipeline.batch_worker import BatchWorker

redis.Redis.__init__ = functools.partialmethod(redis.Redis.__init__, port=int(os.environ["RQS_REDIS_PORT"]))
for module in (rq, rq.worker):
    module.Worker = module.SimpleWorker = BatchWorker
"""


def fetched(folder: Path) -> Path:
    """RQ's source distribution, of the version that is installed."""
    wanted = f"rq=={version('rq')}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", wanted]
    subprocess.run(pip, cwd=folder, check=True)
    [archive] = folder.glob("rq-*.tar.gz")
    return archive


def unpacked(archive: Path, folder: Path) -> Path:
    """RQ's tests without RQ itself."""
    source = folder / f"rq-{version('rq')}"
    if archive.name != f"{source.name}.tar.gz":
        raise click.UsageError(f"{archive}: wants {source.name}.tar.gz, as this RQ is installed")
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    shutil.rmtree(source / "rq")
    (source / "conftest.py").write_text(_CONFTEST, encoding="utf-8")
    return source


def run(source: Path) -> str:
    """What pytest says of them."""
    port = free_port()
    server = [find_binary(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(source)]
    redis_server = subprocess.Popen(server, stdout=subprocess.DEVNULL)
    try:
        tests = [f"tests/test_{name}.py" for name in FILES]
        options = ["-q", "-W", "ignore", "--timeout", "60", "-p", "no:cacheprovider", "-rfE"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *tests],
            cwd=source,
            env={**os.environ, "RQS_REDIS_PORT": str(port)},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        redis_server.terminate()
        redis_server.wait()
    return done.stdout


@click.command()
@click.argument("archive", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(archive: Path | None) -> None:
    """Run RQ's own tests against the batch worker; 1 if they do not pass as listed here."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        said = run(unpacked(archive or fetched(folder), folder))
    failed = set(re.findall(r"^(?:FAILED|ERROR) tests/\w+\.py::(\S+)", said, flags=re.MULTILINE))
    for test in sorted(failed & NOT_PASSED.keys()):
        click.echo(f"not passed  {test}: {NOT_PASSED[test]}")
    for test in sorted(failed - NOT_PASSED.keys()):
        click.echo(f"FAILED      {test}")
    for test in sorted(NOT_PASSED.keys() - failed):
        click.echo(f"PASSED      {test}, which is listed as not passed")
    click.echo(said.splitlines()[-1])
    sys.exit(failed != NOT_PASSED.keys())


if __name__ == "__main__":
    main()
