"""The benchmarks by name: the module of each in this package, and what it asks."""

from __future__ import annotations

BENCHMARKS = {
    "backlog": ("backlog", "Whether a long backlog makes a job cost more"),
    "memory": ("memory", "What each further worker of a shared model takes"),
    "start": ("start", "From nothing to the first bookmark done, and how long short commands take"),
    "bookmarks": ("bookmarks", "Two workers on real pages, against a plain loop and the naive recipe"),
    "bookmarks-slow-origin": ("bookmarks_slow_origin", "The same when the web site answers after 300 ms"),
    "empty-jobs": ("empty_jobs", "What a queue itself costs, by kind of worker"),
    "quick-save": ("quick_save", "What one API process answers, every save committed and queued"),
    "embedding": ("embedding", "What a text's vector costs, against one `encode` after another in float32"),
    "extraction": ("extraction", "What a page's title, text, language and date cost, against trafilatura"),
    "redis-cost": ("redis_cost", "What a job costs Redis in commands, bytes and memory"),
    "replay": ("replayed_jobs", "How fast recorded jobs are put through another queue, as a plan does"),
}
#: What stands for every one of them.
ALL = "all"
#: How many repeats it takes to conclude from one: as `stats.BLOCKS_TO_CONCLUDE`, whose module takes long to import; fewer
#: where it counts instead of taking time.
_USUAL_BLOCKS, _BLOCKS = 6, {"redis-cost": 2}


def blocks_of(name: str) -> int:
    """How often everything is repeated unless somebody says otherwise, and at least for anything to be concluded."""
    return _BLOCKS.get(name, _USUAL_BLOCKS)
