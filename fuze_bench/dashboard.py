"""rq-dashboard over the pipeline's queues: told the serializer, on loopback, and made safe for what strangers write.

Pages put their words into jobs (an address, an error), and rq-dashboard 0.9 writes some of them into its job page as
markup; here they arrive there escaped. It changes things without asking who sent the request; here other sites' requests
are refused.
"""

from __future__ import annotations

import html
import logging
from typing import Any

import redis
import werkzeug.serving
from flask import Flask, Response, json, request
from rq.serializers import JSONSerializer
from rq_dashboard import web

from fuze_bench.pipeline.api.hosts import Hosts, strangers_page
from fuze_bench.pipeline.redis_server import connect

_HOST = "127.0.0.1"
_HOSTS = Hosts(_HOST, [])
_JOB_DATA = "rq_dashboard.job_info"


def create_dashboard(redis_url: str) -> Flask:
    """The dashboard as a WSGI application."""

    def connection(_url: str, **_options: Any) -> tuple[None, redis.Redis]:
        return None, connect(redis_url, connect_timeout_s=2, timeout_s=10)

    web.config.serializer = JSONSerializer
    web.from_url = connection  # its own knows neither time limits nor certificates
    app = Flask(web.__name__)  # where its static files are
    # It lists the addresses it was given; ours may carry a password.
    app.config.update(RQ_DASHBOARD_REDIS_URL=("redis",), RQ_DASHBOARD_POLL_INTERVAL=2_000)
    web.setup_rq_connection(app)
    app.before_request(_refuse_strangers)
    app.after_request(_escape_job)
    app.register_blueprint(web.blueprint)
    return app


def serve_dashboard(redis_url: str, port: int) -> None:
    """Serve it on loopback until interrupted."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    with werkzeug.serving.make_server(_HOST, port, create_dashboard(redis_url), threaded=True) as server:
        server.serve_forever()


def _refuse_strangers() -> Response | None:
    """A name that was pointed at this machine, and requests that another site's page sends."""
    headers = request.headers
    if not _HOSTS.serves(headers.get("Host", "").encode("latin-1")):
        return Response(f"this dashboard is not {request.host}\n", 421)
    is_visit = request.method == "GET" and headers.get("Sec-Fetch-Mode") == "navigate"
    changes = request.method != "GET" or request.path.startswith("/requeue/")
    stranger = strangers_page(headers.get("Sec-Fetch-Site"), headers.get("Origin"), request.host)
    if stranger is not None and (changes or not is_visit):
        return Response("the page of another site asked for this\n", 403)
    return None


def _escape_job(response: Response) -> Response:
    if request.endpoint == _JOB_DATA and response.is_json:
        response.set_data(json.dumps(_escaped(response.get_json())))
    return response


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return html.escape(value)
    if isinstance(value, list):
        return [_escaped(each) for each in value]
    if isinstance(value, dict):
        return {name: _escaped(each) for name, each in value.items()}
    return value
