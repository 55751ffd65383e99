"""The batch form of a job's function: how many calls of it are done at once, with their input fetched ahead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

#: The positional and the keyword arguments of one call.
Call = tuple[tuple[Any, ...], dict[str, Any]]
F = TypeVar("F", bound=Callable[..., Any])


class BatchForm(Protocol):
    """What a batch worker uses instead of the function when several calls of it are in hand."""

    #: The most calls that are done at once.
    size: int

    def begin(self, calls: Sequence[Call]) -> Any:
        """Start what can run beside other work, such as fetching, and return at once; what is returned goes to
        `finish`."""

    def is_ready(self, begun: Any) -> bool:
        """Whether `finish` would not have to wait for what was started: until then, others are begun."""

    def finish(self, begun: Any) -> Sequence[Any]:
        """Do the rest. For each call, in order: its value, the exception that ends it, or an `rq.job.Retry`.

        An exception raised here, also by the time limit, is nobody's failure: each call is then made in a batch of its
        own, which fails by it.
        """


_FORMS: dict[str, BatchForm] = {}


def with_batch_form(form: BatchForm) -> Callable[[F], F]:
    """Decorates the function of a job: a batch worker does many calls of it at once, every other worker one."""

    def register(function: F) -> F:
        _FORMS[f"{function.__module__}.{function.__qualname__}"] = form
        return function

    return register


def batch_form(function_name: str) -> BatchForm | None:
    """The batch form of a function by its dotted name, if its module is loaded and says one."""
    return _FORMS.get(function_name)


def largest_batch() -> int:
    """The most calls that any known batch form does at once; 1 where none is known."""
    return max((form.size for form in _FORMS.values()), default=1)


def any_batch_form() -> bool:
    """Whether it is worth looking at what a job calls before its turn has come."""
    return bool(_FORMS)
