"""People who send what cannot be accepted: every answer must be 4xx, anything else is a failure."""

from locust import constant, tag, task  # isort: skip  # first: gevent patches what comes after

import itertools

import _options  # noqa: F401  # adds the command line's
from _requests import HOSTILE
from _sending import ApiUser


class Hostile(ApiUser):
    """Sends one bad request after the other, all kinds in turn."""

    wait_time = constant(0)

    def on_start(self) -> None:
        super().on_start()
        self._requests = itertools.cycle(HOSTILE)

    @tag("hostile")
    @task
    def attack(self) -> None:
        self.send(next(self._requests))
