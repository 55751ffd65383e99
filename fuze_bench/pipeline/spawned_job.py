"""One job of a spawn worker, in an interpreter of its own: `python -m fuze_bench.pipeline.spawned_job WORKER JOB QUEUE`.

Started by `PipelineSpawnWorker`; what RQ puts into the command line (the address and password of Redis) comes from the
environment here.
"""

from __future__ import annotations

import os
import sys

from rq import Queue
from rq.executions import Execution
from rq.job import Job
from rq.serializers import JSONSerializer

from fuze_bench import logs
from fuze_bench.pipeline.redis_server import connect
from fuze_bench.pipeline.rq_workers import PipelineSpawnWorker, job_fields
from fuze_bench.pipeline.settings import Settings


def main(worker_name: str, job_id: str, queue_name: str) -> int:
    """Run the job and end the process; 1 if its worker is not known (any more)."""
    settings = Settings.from_mapping(os.environ)
    logs.configure(settings.log_format)
    logs.name_worker(worker_name)
    connection = connect(settings.redis_url or "")
    worker = PipelineSpawnWorker.find_by_key(
        f"rq:worker:{worker_name}", connection=connection, serializer=JSONSerializer
    )
    if worker is None:
        return 1
    worker.default_result_ttl = settings.result_ttl_s
    worker.log_result_lifespan = False
    job = Job.fetch(job_id, connection=connection, serializer=JSONSerializer)
    execution = Execution.fetch(os.environ["RQ_EXECUTION_ID"], job_id, connection=connection)
    execution._job = job
    worker.execution = execution
    with logs.during(job_fields(job_id, queue_name)):
        worker.main_work_horse(job, Queue(queue_name, connection=connection, serializer=JSONSerializer))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
