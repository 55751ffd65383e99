"""Queues empty jobs on another queue.

    python -m fuze_bench.lab.benchmarks.peers.send MODULE COUNT KIND

COUNT jobs of the MODULE, all with the note KIND if that is `warm`, and else the last one alone.
"""

from __future__ import annotations

import sys
from importlib import import_module

from fuze_bench.lab.benchmarks.peers.note import WARM

if __name__ == "__main__":
    _module, _count, _kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    import_module(_module).send([_kind] * _count if _kind == WARM else [*[""] * (_count - 1), _kind])
