"""What can be said on Locust's command line beside its own options, and which users run unless they are named."""

from locust import events  # isort: skip  # first: gevent patches what comes after

import logging
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import gevent
from _sending import log
from locust.env import Environment
from locust.runners import STATE_MISSING, MasterRunner, WorkerRunner
from locust.stats import CSV_STATS_INTERVAL_SEC

from fuze_bench.lab.arrivals import LAWS, Arrivals

logger = logging.getLogger(__name__)

_DEFAULTS = {"rate_per_s": 10.0, "duration_s": 60.0, "burst_size": 100, "burst_every_s": 10.0}
_lost_workers: set[str] = set()


@events.init_command_line_parser.add_listener
def _add_options(parser: Any) -> None:
    def option(name: str, default: str, text: str, **more: Any) -> None:
        parser.add_argument(name, default=default, help=text, **more)

    option("--origin", "http://127.0.0.1:8001", "The web site whose pages are saved.", env_var="ORIGIN_URL")
    option("--request-log", "", "A file to be written: what became of each request.", env_var="LOCUST_REQUEST_LOG",
           include_in_web_ui=False)  # fmt: skip
    option("--arrivals", "constant", f"Open-loop users: the law ({', '.join(LAWS)}).")
    option("--rate", "", "Requests a second, of all of the class together (constant, poisson, spike).  [10]")
    option("--window", "", "How many seconds load is offered for (constant, poisson, burst, spike).  [60]")
    option("--steps", "", "Rates and seconds, such as 10x5,50x5 (step).")
    option("--burst-size", "", "How many at once (burst, spike, backlog).  [100]")
    option("--burst-every", "", "Seconds from burst to burst (burst).  [10]")
    option("--trace", "", "A CSV file with the columns time, url and queue (trace).")
    option("--seed", "1", "Makes random arrivals repeatable.")
    option("--drain", "10", "Seconds that answers are waited for after the last open-loop request.")
    option("--begin-file", "", "A file to be written: the monotonic nanoseconds that open-loop times count from.",
           include_in_web_ui=False)  # fmt: skip


def arrivals_of(options: Namespace) -> Arrivals:
    """Raises LabError, and ValueError for what is no number."""
    given: dict[str, Any] = {
        "rate_per_s": _number(float, "--rate", options.rate),
        "duration_s": _number(float, "--window", options.window),
        "steps": _steps(options.steps),
        "burst_size": _number(int, "--burst-size", options.burst_size),
        "burst_every_s": _number(float, "--burst-every", options.burst_every),
        "trace": options.trace or None,
    }
    values = {name: value for name, value in given.items() if value is not None}
    for name in LAWS.get(options.arrivals, ()):
        if name in _DEFAULTS:
            values.setdefault(name, _DEFAULTS[name])
    return Arrivals.from_mapping({"law": options.arrivals, **values})


def _number(kind: type, name: str, text: str) -> Any:
    try:
        return kind(text) if text else None
    except ValueError:
        raise ValueError(f"{name} {text!r} is not a number that can be used here") from None


def _steps(text: str) -> list[list[float]] | None:
    try:
        return [[float(number) for number in part.split("x")] for part in text.split(",")] if text else None
    except ValueError:
        raise ValueError(
            f"--steps {text!r} cannot be read: use rates and seconds, such as 10x5,50x5"
        ) from None


@events.init.add_listener
def _begin(environment: Environment, **_: Any) -> None:
    options = environment.parsed_options
    is_worker = isinstance(environment.runner, WorkerRunner)
    try:
        arrivals_of(options)
        for name in ("seed", "drain"):
            _number(int if name == "seed" else float, f"--{name}", getattr(options, name))
        if options.begin_file and not Path(options.begin_file).absolute().parent.is_dir():
            raise ValueError(f"--begin-file {options.begin_file!r} is in no folder that there is")
        if options.request_log and not is_worker:
            log.open(options.request_log, anew=True)
    except Exception as error:  # noqa: BLE001  # whatever it is, one line says so and nothing is sent
        sys.exit(f"locust: {' '.join(str(error).split())}")
    if is_worker:  # what runs is the master's choice; its standard output, too, is the master's alone
        options.json = False
    else:
        environment.user_classes[:] = _chosen(environment)
    if isinstance(environment.runner, MasterRunner):
        gevent.spawn(_watch, environment.runner)
    for user in environment.user_classes:
        # Not in the class: Locust reports those that do not run, too.
        user.fixed_count = 1 if getattr(user, "is_open_loop", False) else 0


def _watch(runner: MasterRunner) -> None:
    while True:
        _note_the_lost(runner)
        gevent.sleep(0.5)


def _note_the_lost(runner: MasterRunner) -> None:
    """Locust itself forgets a missing worker after a minute."""
    for name, worker in runner.clients.items():
        (_lost_workers.add if worker.state == STATE_MISSING else _lost_workers.discard)(name)


@events.test_start.add_listener
def _log_beside_the_master(environment: Environment, **_: Any) -> None:
    """A worker knows the master's options only now; on another machine its lines are in a file there."""
    path = environment.parsed_options.request_log
    if path and isinstance(environment.runner, WorkerRunner):
        log.open(path, anew=False)


def _chosen(environment: Environment) -> list[Any]:
    """The users that have something to do, without the open-loop ones if nobody was named."""
    options = environment.parsed_options
    users = list(environment.user_classes)
    if not options.user_classes and not options.class_picker:
        users = [user for user in users if not getattr(user, "is_open_loop", False)] or users
    wanted, unwanted = set(options.tags or ()), set(options.exclude_tags or ())
    busy = [
        user
        for user in users
        if any((not wanted or _tags(task) & wanted) and not _tags(task) & unwanted for task in user.tasks)
    ]
    if not busy:
        known = sorted(
            set().union(*(_tags(task) for user in environment.user_classes for task in user.tasks))
        )
        sys.exit(f"locust: no task is left with these tags: use some of {', '.join(known)}")
    return busy


def _tags(task: Any) -> set[str]:
    return getattr(task, "locust_tag_set", set())


@events.quitting.add_listener
def _let_the_csv_files_be_whole(environment: Environment, **_: Any) -> None:
    """Locust writes them every second, and not once more when it ends: what came since is written when this is over."""
    if environment.parsed_options.csv_prefix and not isinstance(environment.runner, WorkerRunner):
        gevent.sleep(CSV_STATS_INTERVAL_SEC + 0.2)


@events.quitting.add_listener
def _say_if_nothing_came_of_it(environment: Environment, **_: Any) -> None:
    """A run that sent nothing, or lost a part of itself, has not ended well, whatever Locust thinks of it."""
    runner = environment.runner
    if isinstance(runner, WorkerRunner) or environment.web_ui is not None:
        return
    if isinstance(runner, MasterRunner):
        _note_the_lost(runner)
    problem = None
    if _lost_workers:
        problem = f"{len(_lost_workers)} worker(s) went missing: what they sent is not counted"
    elif environment.stats.total.num_requests == 0:
        problem = "no request was answered: there was no worker, no time, or no API"
    if problem is not None:
        logger.error(problem)
        environment.process_exit_code = 1
