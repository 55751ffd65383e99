"""What a verdict is: a named reason for doubt, answered yes, no or unknown, and how a list of them shows itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from html import escape
from typing import Any

import pandas as pd


class Answer(StrEnum):
    """Whether the doubt that a verdict names holds. UNKNOWN where the record does not tell."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Verdict:
    """One doubt about one trial, or about the whole run where `trial` is None.

    `name` says what is wrong if the answer is yes, such as "growing backlog"; `reason` is one sentence. `too_small`: it
    is unknown because no trial of this size tells, whatever was recorded of it; a longer one would.
    """

    name: str
    answer: Answer
    reason: str
    trial: int | None = None
    too_small: bool = False

    def __str__(self) -> str:
        where = "" if self.trial is None else f"trial {self.trial}: "
        return f"{where}{self.name}: {self.answer}, {self.reason}"


@dataclass(frozen=True)
class Verdicts:
    """Verdicts in the order they were made. Shows itself in a notebook, what holds first."""

    all: tuple[Verdict, ...]

    @classmethod
    def of(cls, verdicts: Iterable[Verdict]) -> Verdicts:
        """All the verdicts that an iterable gives."""
        return cls(tuple(verdicts))

    @classmethod
    def from_json(cls, rows: Iterable[Mapping[str, Any]]) -> Verdicts:
        """What `as_json` wrote. Raises KeyError or ValueError for anything else."""
        return cls.of(
            Verdict(row["name"], Answer(row["answer"]), row["reason"], row["trial"], row["too_small"])
            for row in rows
        )

    def as_json(self) -> list[dict[str, Any]]:
        """For verdict.json: a mapping a verdict, with its fields; `trial` is null for the whole run."""
        return [{**vars(v), "answer": v.answer.value} for v in self.all]

    def that_are(self, answer: Answer) -> Verdicts:
        """Those with this answer."""
        return Verdicts.of(verdict for verdict in self.all if verdict.answer is answer)

    def table(self) -> pd.DataFrame:
        """A row a verdict: trial (missing for the whole run), name, answer, reason."""
        table = pd.DataFrame(self.as_json(), columns=["trial", "name", "answer", "reason"])
        return table.astype({"trial": "Int64"})

    def __iter__(self) -> Iterator[Verdict]:
        return iter(self.all)

    def __len__(self) -> int:
        return len(self.all)

    def _repr_html_(self) -> str:
        order = [Answer.YES, Answer.UNKNOWN, Answer.NO]
        rows = "".join(
            f"<tr><td>{'all' if v.trial is None else v.trial}</td><th scope='row'>{escape(v.name)}</th>"
            f"<td class='answer-{v.answer}'>{v.answer}</td><td>{escape(v.reason)}</td></tr>"
            for v in sorted(self.all, key=lambda v: order.index(v.answer))
        )
        head = "".join(f"<th scope='col'>{word}</th>" for word in ("trial", "doubt", "holds", "reason"))
        return f"<table class='verdicts'><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
