"""What a run was measured on: the machine, the versions of what ran, and how busy it was before."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from fuze_bench.pipeline.redis_server import find_binary
from fuze_bench.processes import usable_cores

_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_PACKAGES = (
    "fuze-bench",
    "rq",
    "redis",
    "torch",
    "sentence-transformers",
    "trafilatura",
    "lxml",
    "requests",
    "SQLAlchemy",
    "numpy",
    "pandas",
    "scipy",
)


def describe_machine(more_packages: Iterable[str] = ()) -> dict[str, Any]:
    """Names and values for `machine.json`; what cannot be found out is None."""
    return {
        "cpu_model": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "governor": _governor(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in (*_PACKAGES, *more_packages)},
        "redis_server": _redis_version(),
        "git_commit": _git("rev-parse", "HEAD"),
        "git_has_changes": None if (status := _git("status", "--porcelain")) is None else status != "",
        "load_1min_before": os.getloadavg()[0],
    }


def _cpu_model() -> str | None:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or None
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _governor() -> str | None:
    """How the kernel chooses the processor's speed; None where it says nothing, as in most virtual machines."""
    try:
        return _GOVERNOR.read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _redis_version() -> str | None:
    printed = _printed([find_binary(), "--version"])
    found = re.search(r"v=([\d.]+)", printed or "")
    return found[1] if found else None


def _git(*arguments: str) -> str | None:
    return _printed(["git", "-C", str(Path(__file__).resolve().parent), *arguments])


def _printed(argv: list[str]) -> str | None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
