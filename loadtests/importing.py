"""People who import a list of bookmarks and save single pages meanwhile."""

from locust import constant, tag, task  # isort: skip  # first: gevent patches what comes after

import secrets

import _options  # noqa: F401  # adds the command line's
import _requests
import gevent
from _sending import ApiUser

_LISTED = 500
_SAVE_EACH_S = 0.1


class ImportsBesideSaves(ApiUser):
    """While an import of 500 pages is under way, saves ten a second: nobody is to notice the import."""

    wait_time = constant(1)

    def on_start(self) -> None:
        super().on_start()
        self._urls = _requests.pages(self.environment.parsed_options.origin.rstrip("/"), secrets.token_hex(6))

    @tag("import")
    @task
    def import_and_save(self) -> None:
        importing = gevent.spawn(self.send, _requests.import_list(self._urls, _LISTED))
        try:
            while not importing.ready():
                self.send(_requests.quick_save(next(self._urls), name="quick-save beside an import"))
                gevent.sleep(_SAVE_EACH_S)
        finally:
            importing.kill()
