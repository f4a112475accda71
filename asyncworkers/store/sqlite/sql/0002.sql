-- An id may be used again once its job is forgotten, so a key names its holder by `seq`, and by id
-- only for who is told of it; and a job notes what key it asked for, to hold it again when it is retried.

ALTER TABLE asyncworkers_keys ADD COLUMN seq INTEGER;

-- The key, until what, until when: as in the table of keys, as a JSON array.
ALTER TABLE asyncworkers_jobs ADD COLUMN claim TEXT;

UPDATE asyncworkers_keys SET seq =
    (SELECT j.seq FROM asyncworkers_jobs AS j WHERE j.id = asyncworkers_keys.id);

UPDATE asyncworkers_jobs SET claim = json_array(k.key, k.until, k.date)
    FROM asyncworkers_keys AS k WHERE k.seq = asyncworkers_jobs.seq;
