"""The empty job, in a file that imports nothing: a worker that forks for every job imports it every time."""


def nothing() -> None:
    """The job."""


def fail() -> None:
    """A job that does nothing but fail."""
    raise ValueError("this job fails, as it is meant to")
