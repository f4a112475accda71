"""The main job on real input: the standard library's pages rendered, served, crawled and analyzed.

    asyncworkers demo                 with the supervisor
    asyncworkers demo --sequential    the same functions in a plain loop, to compare

Three stages, each of them real work:

1. `render`: blocking jobs in threads run pydoc over some 500 modules, in child processes.
2. `fetch`: a web server in a process of its own serves the pages, with latency and with faults;
   a few hundred coroutine workers crawl them from the index by following links, each address
   once, with a timeout for each request and patience for what may pass.
3. `parse` and `compress`: each page that arrives goes to CPU-bound jobs in child processes. The
   links that `parse` finds are what `fetch` visits next: two streams, each feeding the other.

Read `crawl.py` for the jobs, `supervised.py` for how they run side by side, `sequential.py` for
the same without a supervisor. The rest makes the work (`catalog`, `render`, `site`, `analyze`),
watches it (`diary`, `display`) and tells of it (`findings`, `report`, `ratio`, and
`asyncworkers.timeline`, which draws what the diary holds).
"""
