"""fuze_bench: a bookmark pipeline on RQ, and a laboratory that measures it.

`fuze_bench.pipeline` is what is measured and can be used in a product on its own;
`fuze_bench.lab` is what measures; `fuze_bench.cli` and the notebooks are faces of both.
"""

__version__ = "0.1.0"
