"""People who save a page and look until it is processed."""

from locust import constant, tag, task  # isort: skip  # first: gevent patches what comes after

import secrets
import time

import _options  # noqa: F401  # adds the command line's
import _requests
import gevent
from _requests import Request
from _sending import ApiUser

_LOOK_EACH_S = 0.2
_PATIENCE_S = 60.0


class StatusReaders(ApiUser):
    """Save, look at the bookmark five times a second, and have the time until it is processed counted, too."""

    wait_time = constant(0)

    def on_start(self) -> None:
        super().on_start()
        self._urls = _requests.pages(self.environment.parsed_options.origin.rstrip("/"), secrets.token_hex(6))

    @tag("status")
    @task
    def save_and_look(self) -> None:
        begin_s = time.monotonic()
        saved = self.send(_requests.quick_save(next(self._urls)))
        if saved.status_code not in _requests.SAVED:
            return
        path = f"/api/bookmarks/{saved.json()['bookmark']['id']}"
        look = Request("read status", path, method="GET", right={200})
        status = "pending"
        while status in ("pending", "processing") and time.monotonic() < begin_s + _PATIENCE_S:
            gevent.sleep(_LOOK_EACH_S)
            found = self.send(look)
            if found.status_code != 200:
                return
            status = found.json()["status"]
        wrong = None if status == "processed" else RuntimeError(f"the bookmark is {status}")
        self.environment.events.request.fire(
            request_type="WAIT",
            name="saved until processed" + ("" if wrong is None else " (failed)"),
            response_time=(time.monotonic() - begin_s) * 1e3,
            response_length=0,
            exception=wrong,
            context={},
        )
