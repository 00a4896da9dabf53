"""The library beside its peers: one machine, one run, the same messages and vectors for all.

`make bench-peers` builds an environment of its own for them (nothing of theirs enters the
project's), measures, and writes the tables and the plot of docs/benchmarks.md.
"""
