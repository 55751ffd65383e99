"""People who save pages, one after another: new ones, shared ones, some twice, some more urgent than others.

    locust -f loadtests QuickSaves --headless --users 10 --run-time 30s

--host (or LOCUST_HOST) is the API, --origin (or ORIGIN_URL) the web site whose pages are saved; by default those of
`fuze-bench up`. Workers fetch from another site on this machine or an intranet only if their FUZE_FETCH_ALLOW names it.
A closed loop waits for each answer before it asks again: it finds the highest rate, and hides how long a stalled server
would have kept real users waiting. `open_loop.py` does not.
"""

from locust import constant, tag, task  # isort: skip  # first: gevent patches what comes after

import secrets
from collections.abc import Callable, Iterator

import _options  # noqa: F401  # adds the command line's
import _requests
from _requests import Request
from _sending import ApiUser


class _Saver(ApiUser):
    """Does what its `scenario` says, without a pause."""

    abstract = True
    wait_time = constant(0)
    scenario: Callable[[Iterator[str]], Iterator[Request]]

    def on_start(self) -> None:
        super().on_start()
        # Other load generators of the same run, and earlier runs, are to save other pages.
        urls = _requests.pages(self.environment.parsed_options.origin.rstrip("/"), secrets.token_hex(6))
        self._requests = type(self).scenario(urls)


class QuickSaves(_Saver):
    """Saves new pages of the corpus."""

    scenario = staticmethod(_requests.quick_saves)
    weight = 5

    @tag("quick-save")
    @task
    def save(self) -> None:
        self.send(next(self._requests))


class Shares(_Saver):
    """Shares pages with the installed app."""

    scenario = staticmethod(_requests.shares)

    @tag("share")
    @task
    def share(self) -> None:
        self.send(next(self._requests))


class Duplicates(_Saver):
    """Saves a fifth of its pages again."""

    scenario = staticmethod(_requests.duplicates)

    @tag("duplicates")
    @task
    def save(self) -> None:
        self.send(next(self._requests))


class Priorities(_Saver):
    """Saves to all three queues."""

    scenario = staticmethod(_requests.priorities)

    @tag("priorities")
    @task
    def save(self) -> None:
        self.send(next(self._requests))
