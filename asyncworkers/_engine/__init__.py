"""The moving parts of one process: queues, workers, attempts, and what ends them.

A job's day
===========

*Morning.* `Supervisor.submit` makes a `Job` of a function and its arguments. What all jobs of one
function share (the queue, the policies, the function itself) stands in one `Order`, so that a
job is small: a million may wait. The job notes the time and, if the submitter has any context
variables set, a snapshot of them. Then its queue (`memory`) accepts it: the job stands in a `line`,
or, if it has a delay, in the queue's `timetable` until it is due. The queue wakes an idle worker of
its `crew`, or hires one (`employment`).

*Noon.* A worker (`worker`) is a coroutine that asks its queue for the next job. It knows nothing
else: not who submitted the job, not whether it will ever be stored. It has an `Attempt` in hand,
the same object for all its jobs, through which a job can be found and cancelled while it runs.
It runs the job's function:
- in its own task, in line, if the job took no context along: the ordinary case, and the fastest;
- in its own task, but step by step in the job's own context (`drive`), if it did;
- in a task of the job's own, for queues that are declared so;
Other queues have other workers: `call_worker` has a bridge carry one job at a time, to a thread or to
wherever a user's bridge leads; `line_worker` keeps a child process busy with a line of jobs (`sent`),
unloads what comes back (`unloading`), and has others look after the child (`child_life`, `_watch`,
`_words`).
Whatever comes back, a value or an exception of any kind, is a fact: an `Outcome`.

*Afternoon.* `policies.decide` judges the fact, knowing no clock and touching nothing: complete,
fail, cancel, or try again after so many seconds. The queue settles: it gives the job its end and
wakes whoever awaits it, or puts it back into the timetable. Listeners hear of each step, in order,
from the queue's `teller`; whoever asks for figures or for jobs has them from its `census`.
A job that succeeds in the ordinary way takes a short cut through all of this (`complete`).

*Interruptions* (`unwinding`). A timeout, `cancel()`, or the supervisor's end cancels the attempt,
never the worker as such, and the reason given is the outcome, whatever the function does about it.
If the function does not end within `unwind` seconds, the job is settled without it: the worker is
retired with the stubborn code and another one is hired. A worker also ends, and is replaced, when a
job left its task cancelled or its context changed, so that no job inherits anything from another.

*A job that awaits a job* lends its slot: the queue may hire one more worker meanwhile. When the job
goes on there may be one too many; then nothing new is started until one of them is done.

*An escort* (`escorting`), if there is one, goes along: a job gets headers where it is submitted, a
context of its own where an attempt begins, and whoever traces it is told of the end. Jobs then take
the longer path, as they do when somebody listens.

*A stream* (`supply`) stands in line as one entry for all its items. Workers take it in turns with
the jobs beside it, and run its items back to back, mostly without making a Job for each.

*Evening.* `stop` tells how it ends: finish, then cancel, then abandon; it never hangs.

Who may change what: everything here is synchronous between two awaits, in one loop and one thread.
Only `watchdog` looks in from another thread, and `bridge.thread` posts its ends through the loop.
"""
