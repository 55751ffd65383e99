"""How far a command is: a bar on a terminal's standard error, nothing anywhere else."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import Progress


def progress_bar() -> Progress:
    """A bar that is gone at the end. What the command prints stays clean, also where that goes into a pipe."""
    return Progress(
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
    )
