"""Source code for the code blocks of the technical articles; placeholders are filled per page."""

CODE_TOPICS = frozenset(
    {"Databases", "Background jobs", "Chess", "Informatik", "Tecnología", "Programowanie", "Технологии"}
    | {"情報技術", "计算机技术"}
)

SAMPLES = (
    """def enqueue_{word}(queue, payload, retries={n}):
    if len(payload) > {big}:
        raise ValueError("payload too large: %d bytes" % len(payload))
    job = queue.create(payload, max_attempts=retries)
    return job.identifier""",
    """SELECT {word}_id, count(*) AS total, avg(duration_ms) AS mean
FROM {word}_events
WHERE created_at >= '2021-01-{n:02d}' AND status <> 'failed'
GROUP BY {word}_id
HAVING count(*) > {big}
ORDER BY total DESC;""",
    """{{
  "service": "{word}",
  "workers": {n},
  "max_memory_mb": {big},
  "queues": ["high", "default", "low"],
  "retry": {{"delays_s": [1, 5, 25], "jitter": true}}
}}""",
    """#!/bin/sh
set -eu
for shard in $(seq 1 {n}); do
    restore --target {word}-$shard --limit {big} < dump-$shard.sql
done
echo "restored {word}" && exit 0""",
    """fn drain_{word}(limit: usize) -> Result<usize, Error> {{
    let mut taken = 0;
    while taken < limit && taken < {big} {{
        match pop()? {{
            Some(job) => taken += job.weight * {n},
            None => break,
        }}
    }}
    Ok(taken)
}}""",
)

WORDS = ("invoice", "bookmark", "thumbnail", "ledger", "session", "archive", "payment", "crawler", "digest")
