-- The first schema. All names begin alike, so that the file may hold an application's own tables too.

CREATE TABLE asyncworkers_meta (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Which copy of the data this is.
INSERT INTO asyncworkers_meta VALUES ('generation', lower(hex(randomblob(16))));

CREATE TABLE asyncworkers_queues (
    queue TEXT NOT NULL PRIMARY KEY,
    paused INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What jobs there can be: a function on a queue, its arguments written in a codec. Jobs are leased
-- by kind, so those that nobody here can run cost nothing, however many they are.
CREATE TABLE asyncworkers_kinds (
    kind INTEGER PRIMARY KEY,
    queue TEXT NOT NULL,
    name TEXT NOT NULL,
    codec TEXT NOT NULL,
    UNIQUE (queue, name, codec)
) STRICT;

-- Who has the store open. `expires` is in milliseconds of the machine's uptime in its `boot`.
CREATE TABLE asyncworkers_workers (
    worker INTEGER PRIMARY KEY AUTOINCREMENT,
    pid INTEGER NOT NULL,
    boot TEXT NOT NULL,
    expires INTEGER NOT NULL
) STRICT;

-- Who holds a unique key: until a date, or else until its job has "started" or is "done".
CREATE TABLE asyncworkers_keys (
    key TEXT NOT NULL PRIMARY KEY,
    id TEXT NOT NULL,
    until TEXT NOT NULL,
    date INTEGER
) STRICT, WITHOUT ROWID;

-- `seq` is never used twice, so a lease can name its job by (seq, token) for ever.
-- `state`: 0 queued, 1 scheduled, 2 running, 3 succeeded, 4 failed, 5 cancelled.
-- `rank` is the priority negated: what comes first sorts first. Dates are milliseconds Unix time.
-- `crc` covers what never changes: see `checksum` in records.py.
CREATE TABLE asyncworkers_jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    kind INTEGER NOT NULL,
    state INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    due INTEGER NOT NULL,
    token INTEGER NOT NULL DEFAULT 0,
    attempt INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    losses INTEGER NOT NULL DEFAULT 0,
    worker INTEGER,
    submitted INTEGER NOT NULL,
    expires INTEGER,
    started INTEGER,
    ended INTEGER,
    until INTEGER,
    keep INTEGER,
    once INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    tags TEXT NOT NULL,
    extra TEXT NOT NULL,
    args TEXT NOT NULL,
    result TEXT,
    error TEXT,
    cancelling TEXT,
    progress TEXT
) STRICT;

CREATE INDEX asyncworkers_queued ON asyncworkers_jobs (kind, rank, due, seq) WHERE state = 0;
CREATE INDEX asyncworkers_scheduled ON asyncworkers_jobs (due, kind) WHERE state = 1;
CREATE INDEX asyncworkers_running ON asyncworkers_jobs (worker) WHERE state = 2;
CREATE INDEX asyncworkers_marked ON asyncworkers_jobs (worker)
    WHERE state = 2 AND cancelling IS NOT NULL;
CREATE INDEX asyncworkers_expiring ON asyncworkers_jobs (expires)
    WHERE state < 2 AND expires IS NOT NULL;
CREATE INDEX asyncworkers_ended ON asyncworkers_jobs (until) WHERE state > 2;
CREATE INDEX asyncworkers_failed ON asyncworkers_jobs (kind) WHERE state = 4;
