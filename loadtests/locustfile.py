"""Quick-saves in a closed loop, for a running `fuze-bench up` or any API of this pipeline.

    locust -f loadtests/locustfile.py --headless --users 10 --run-time 30s

--host is the API, ORIGIN_URL (a variable) the web site whose pages are saved; by default those of `fuze-bench up`.
Workers fetch from another site on this machine or an intranet only if their FUZE_FETCH_ALLOW names it.
A closed loop waits for each answer before it asks again: it finds the highest rate, and hides how long a
stalled server would have kept real users waiting.
"""

from locust import HttpUser, constant, task  # isort: skip  # first: gevent patches what comes after

import itertools
import os

_numbers = itertools.count()


class QuickSaver(HttpUser):
    """Saves one new page after another, without a pause."""

    host = "http://127.0.0.1:8000"
    wait_time = constant(0)

    def on_start(self) -> None:
        self._origin = (os.environ.get("ORIGIN_URL") or "http://127.0.0.1:8001").rstrip("/")
        # Other load generators of the same run are other processes.
        self._user = f"{os.getpid()}-{next(_numbers)}"
        self._pages = itertools.count()

    @task
    def quick_save(self) -> None:
        url = f"{self._origin}/page/{next(self._pages)}?user={self._user}"
        self.client.post("/api/bookmarks/quick-save", json={"url": url}, name="quick-save")
