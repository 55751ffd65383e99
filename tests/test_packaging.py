"""pyproject, constraints and environment.yml say the same; nothing names an index or installs what it should not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: Names that conda-forge spells differently.
CONDA_NAMES = {"pytorch-cpu": "torch", "redis-py": "redis"}
#: What conda brings beside Python packages.
NOT_PYTHON = {"python", "pip", "make", "redis-server"}


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in found}


def requirements(*extras: str) -> list[Requirement]:
    texts = list(PROJECT["dependencies"])
    for extra in extras:
        texts += PROJECT["optional-dependencies"][extra]
    return [r for r in map(Requirement, texts) if r.name != "fuze-bench"]


def conda_pins() -> dict[str, str]:
    found = {}
    for entry in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]:
        for text in entry["pip"] if isinstance(entry, dict) else [entry]:
            match = re.fullmatch(r"([\w.-]+?)==?([\w.]+)", text)
            if match and match[1] not in NOT_PYTHON:
                found[canonicalize_name(CONDA_NAMES.get(match[1], match[1]))] = match[2]
    return found


def test_every_requirement_is_pinned_within_its_range() -> None:
    for requirement in requirements("dashboard", "bench", "lab", "test"):
        pinned = pins()[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pinned), requirement


def test_environment_yml_has_the_same_versions() -> None:
    exact = pins()
    assert conda_pins() == {
        name: exact[name]
        for name in (canonicalize_name(r.name) for r in requirements("dashboard", "bench", "lab", "test"))
    }


def test_this_environment_is_the_pinned_one() -> None:
    for name in ("rq", "redis", "trafilatura", "sentence-transformers", "pandas", "papermill", "locust"):
        assert version(name) == pins()[name]


def test_every_pin_can_be_had_on_the_oldest_python_that_is_promised() -> None:
    oldest = PROJECT["requires-python"].removeprefix(">=") + ".0"
    for name in pins():
        try:
            needs = metadata(name).get("Requires-Python") or ""
        except PackageNotFoundError:
            continue  # for another platform
        assert SpecifierSet(needs).contains(oldest), f"{name} needs Python {needs}"


def test_no_index_is_named() -> None:
    for name in ("constraints.txt", "pyproject.toml", "environment.yml", "Makefile", ".ci/run"):
        text = (ROOT / name).read_text()
        assert not re.search(r"index-url|find-links|://[^\s]*simple", text), name


def test_torch_is_the_one_that_has_a_cpu_build() -> None:
    assert pins()["torch"] == "2.13.0"
    assert not [name for name in pins() if name.startswith("nvidia")]


def test_the_pipeline_alone_brings_no_laboratory() -> None:
    names = {canonicalize_name(r.name) for r in requirements()}
    assert not names & {"jupyterlab", "locust", "pandas", "matplotlib", "papermill", "scipy", "pyarrow"}
    assert {"rq", "redis", "requests", "trafilatura", "sentence-transformers", "lxml-html-clean"} <= names


def test_the_top_level_is_what_was_asked_for() -> None:
    asked = {"notebooks", "fuze_bench", "loadtests", "data", "environment.yml", "tests", "README.md"}
    needed = {"deploy", "pyproject.toml", "constraints.txt", "Makefile", "LICENSE", "CONTRIBUTING.md"}
    assert {name for name in top_level() if not name.startswith(".")} == asked | needed


def top_level() -> set[str]:
    """What is at the top of the repository; in a folder that is no checkout, all that lies there."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        return {p.name for p in ROOT.iterdir() if not p.name.endswith(".egg-info")} - {"build", "reports"}
    listed = subprocess.run(
        [git, "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return {path.partition("/")[0] for path in listed.split("\0") if path}


def test_no_file_names_a_package_index() -> None:
    """Users bring their own: one that is written down is used behind their back."""
    named = re.compile(
        rb"index-url[= ]+https?:|https?://[\w.-]*(?:download\.pytorch|pypi|pythonhosted|anaconda)\b"
    )
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    files = [ROOT / os.fsdecode(name) for name in listed.split(b"\0") if name]
    assert [path for path in files if path != Path(__file__) and named.search(path.read_bytes())] == []
