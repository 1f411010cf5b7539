-- Long work on an instance, from its first step to its end. It replaces the journal, which had one row per instance and no history.
CREATE TABLE operations (
  id INTEGER PRIMARY KEY,
  instance INTEGER NOT NULL,                     -- no reference: an operation outlives its instance
  name TEXT NOT NULL,                            -- of the instance
  kind TEXT NOT NULL,                            -- domain::operation has the words
  state TEXT NOT NULL CHECK (state IN ('running', 'done', 'failed')),
  step TEXT NOT NULL,
  started_at INTEGER NOT NULL,
  ended_at INTEGER,                              -- NULL: it runs
  result TEXT,                                   -- what came of it, or the error; NULL: not known yet
  asked_by TEXT NOT NULL                         -- the way in of who asked; 'unknown' in rows of the journal
) STRICT;
CREATE UNIQUE INDEX operations_running ON operations (instance) WHERE state = 'running';
CREATE INDEX operations_of ON operations (instance, id);

INSERT INTO operations (instance, name, kind, state, step, started_at, asked_by)
SELECT instances.id, name, work, 'running', CASE work WHEN 'create' THEN 'create_files' WHEN 'destroy' THEN 'stop' ELSE 'unregister' END, at, 'unknown'
FROM journal JOIN instances ON instances.id = journal.instance
ORDER BY at, instances.id;

-- A worker of an earlier build writes the journal only for verbs and monitor runs. It ends them and its queue of writes before it
-- releases the owner's lock, and the next worker migrates after it has that lock: so all of its rows are moved above, and nothing is
-- left that needs the table. A write that a slow disk delays beyond the handover fails visibly here, where a table kept for it would
-- take the row and nobody would read it; recovery repeats the step, as after a crash.
DROP TABLE journal;
