"""What became of each request of an offered load, as JSON lines: the record of our sender and of the load tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from fuze_bench.errors import LabError, one_line

if TYPE_CHECKING:
    import pandas as pd

#: `unfinished`: in flight when the time was up; `unsent`: its time had come, and the load generator did not get to it.
Outcome = Literal["ok", "failed", "unfinished", "unsent"]
STAMPS = ("intended_ns", "sent_ns", "acknowledged_ns")


class Sample(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One request. Stamps are nanoseconds of the host's monotonic clock, None where it did not get there.

    `job`: its number in the schedule, from 1. `sent_ns`: when the load generator went about it, connecting included.
    `acknowledged_ns`: when its answer was complete, or when it had failed. `limited`: it waited because as many
    connections as may be were busy. `http_status`: None without an answer. `error`: why it failed: `refused`, `reset`,
    `timeout`, `closed` (without an answer), `broken` (no HTTP), `unreachable`, or `http_503`. The rest is what the answer to a save says, None for other answers.
    """

    job: int
    name: str
    intended_ns: int
    sent_ns: int | None
    acknowledged_ns: int | None
    outcome: Outcome
    limited: bool = False
    http_status: int | None = None
    error: str | None = None
    queue: str | None = None
    bookmark_id: int | None = None
    job_id: str | None = None
    mode: str | None = None
    was_duplicate: bool | None = None


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests there were: offered = sent + unsent, sent = ok + failed + unfinished.

    `limited` counts those that waited for a connection: the load generator's doing, not the server's. With
    anything unfinished, unsent or failed, quantiles over the ok ones leave out what may be the slowest: they are
    lower bounds.
    """

    offered: int
    sent: int
    ok: int
    failed: int
    unfinished: int
    unsent: int
    limited: int
    errors: dict[str, int]

    @property
    def quantiles_are_lower_bounds(self) -> bool:
        """Whether some requests have no time that counts."""
        return self.ok < self.offered


def tally(samples: Iterable[Sample]) -> Tally:
    """The numbers of a record."""
    outcomes = {"ok": 0, "failed": 0, "unfinished": 0, "unsent": 0}
    errors: dict[str, int] = {}
    limited = 0
    for sample in samples:
        outcomes[sample.outcome] += 1
        limited += sample.limited
        if sample.error is not None:
            errors[sample.error] = errors.get(sample.error, 0) + 1
    sent = outcomes["ok"] + outcomes["failed"] + outcomes["unfinished"]
    return Tally(offered=sent + outcomes["unsent"], sent=sent, **outcomes, limited=limited, errors=errors)


_decode = msgspec.json.Decoder(Sample).decode


def read_request_log(path: Path) -> list[Sample]:
    """All requests in the order of their schedule.

    Several processes may have written it, each its lines in the order of the answers. A last line without its end
    is one that its writer did not live to finish, and is left out. Raises LabError, with the line's number, for
    anything else that is no sample.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise LabError(f"cannot read the request log {path} ({one_line(error)})") from None
    samples = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            samples.append(_decode(line))
        except msgspec.DecodeError as error:
            raise LabError(f"{path}, line {number} is no request: {one_line(error)}") from None
    return sorted(samples, key=lambda sample: (sample.intended_ns, sample.job))


def request_table(samples: Sequence[Sample]) -> pd.DataFrame:
    """The samples as a table, a row each, with `Int64` stamps, and in milliseconds (missing where it did not get there)
    `ack_ms` from the intended time to the answer, `ack_service_ms` from sending to the answer, `late_ms` from the
    intended time to sending.
    """
    import pandas as pd  # here, because the sender needs none of it and is to start at once

    # With a missing one among them, plain columns would be floats, which cannot hold every nanosecond.
    whole = ("job", *STAMPS, "http_status", "bookmark_id")
    columns: dict[str, list[object]] = {
        name: [getattr(sample, name) for sample in samples] for name in Sample.__struct_fields__
    }
    table = pd.DataFrame(
        {name: pd.array(values, "Int64") if name in whole else values for name, values in columns.items()}
    )
    intended, sent, acknowledged = (table[name] for name in STAMPS)
    for name, later, earlier in (
        ("ack_ms", acknowledged, intended),
        ("ack_service_ms", acknowledged, sent),
        ("late_ms", sent, intended),
    ):
        table[name] = ((later - earlier).astype("Float64") / 1e6).astype("float64")
    return table
