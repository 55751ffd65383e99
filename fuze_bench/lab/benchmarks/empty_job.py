"""The empty job, in a file that imports nothing: a worker that forks for every job imports it every time."""


def nothing() -> None:
    """The job."""
