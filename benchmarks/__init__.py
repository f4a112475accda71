"""Measures asyncworkers beside the loops people write by hand and the libraries they use instead.

Seven commands, each run from the root of the repository, each printing Markdown:

    python -m benchmarks.inproc     jobs in one process: one table, both event loops
    python -m benchmarks.bridge     jobs over two processes: pace, big arrays, memory, start
    python -m benchmarks.behaviours what happens when processes die, hang, or are interrupted
    python -m benchmarks.memory     bytes of a queued, a sleeping and a failed job
    python -m benchmarks.soak       a million jobs, some failing: does anything grow?
    python -m benchmarks.imports    what `import asyncworkers` costs
    python -m benchmarks.web        requests that start a job, beside BackgroundTasks

A file a role: `contestants` says what is compared, `references`, `ours` and `peers` are the
contestants, `workloads` what they are asked to do, `fresh` runs a measurement in a new process,
`tables` prints. Likewise for processes: `process_pools` are the contestants, `cpu_jobs` what their
children run, `experiments` what is done to them, and `family` finds every process that was started.
"""
