"""The stored queue: jobs live in a store and come to an ordinary queue only to be run.

A stored job's day
==================

`submit` writes the call down (`forms`) and returns when the store has committed it. What the user
gets is a `JobView` (`views`): a Job that knows what was last heard of the one in the store. If a
worker is free, the same turn of the loop also asks for a lease, so that one commit does both.

The `feeder` leases what free workers can take and a little ahead, and puts it in the line of the
`StoredQueue` (`queue`): an in-memory queue whose jobs are the leased ones. Such a job is an
ordinary `Job` with a `Held` where rare things are kept; the worker runs it as it runs any other, and
knows nothing of leases. Taking it from the line is what begins it: a crash is charged from there on.

How it ended is judged as ever; to settle it is to hand a settlement to the `settler`, and to let go of
the local job. The settler gives the store everything that gathered while its last call ran, and
tells the queue what was accepted. Only then is the view's job over, and whoever awaits it woken.

The `keeper`, in a thread, says that this process is alive as long as its loop turns, and brings home
who was cancelled elsewhere. The `depot` owns all of this for one supervisor, `link` is its way to
the store and survives it when the store is away.
"""
