"""Jobs in a SQLite file: one writer thread, group commit, any number of processes of one machine.

- `store` is the store as a supervisor sees it, on its loop;
- `thread` gathers what is asked and has it done together;
- `transaction` is what is then done to the tables, `reading` what is looked up, `records` how rows
  and values are one another, `schema` and `sql/` what the tables are;
- `place` opens the file and knows whether it is still there;
- `presence` is what the processes know of each other: who lives, what began, who waits.
"""

from asyncworkers.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
