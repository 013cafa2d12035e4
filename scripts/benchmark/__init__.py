"""Measures the log against other ways from process to process; run by `scripts/bench`.

::

    cli -> runner -> workloads/   what is measured: one file each, with the goals
                       |    |
                       |    +--> systems/    who is measured: one file each
                       +-------> processes   the processes of one run, and what is said to them
    results <- report                        medians, ratios, verdicts; table and JSON

Rules:

- A run has fresh processes (spawned) and a fresh directory, and leaves neither behind.
- The clock starts when all of them are ready: the start of interpreters is never counted.
- Rounds interleave the contenders, so that a machine that is slow for a while is so for all.
- Only ratios of medians of one run are judged; the rounds tell how far they may be trusted.
- A peer is used in its best plain way, which its module's docstring says; one that is missing or
  fails is said to be so, with the reason, and the run goes on.
- Every event is decoded by its receiver, which checks that it got the last one, whole.
"""
