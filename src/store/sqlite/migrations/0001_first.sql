-- Instances: what they are, and the state of their machine. Times: *_at in ms since 1970 (wall clock, for people);
-- since, quiet_since, retry_at, looked_at in ms of the boot clock of the boot named in `boot`.
CREATE TABLE instances (
  id INTEGER PRIMARY KEY AUTOINCREMENT,          -- never used twice
  name TEXT NOT NULL UNIQUE,
  model TEXT NOT NULL,
  port INTEGER UNIQUE,                           -- NULL: it listens on a unix socket
  params TEXT NOT NULL,                          -- JSON object
  launch TEXT NOT NULL DEFAULT '',               -- JSON, made from model and params
  launch_key TEXT NOT NULL DEFAULT '',           -- the places it was made for; another key: make it again
  owner TEXT,
  idle_ms INTEGER,                               -- NULL: the default of the config
  created_at INTEGER NOT NULL,
  last_wake_at INTEGER,
  last_active_at INTEGER,
  wakes INTEGER NOT NULL DEFAULT 0,
  phase TEXT NOT NULL,
  wanted TEXT NOT NULL,
  run INTEGER NOT NULL DEFAULT 0,
  pid INTEGER,
  pid_start INTEGER,
  boot TEXT NOT NULL,
  since INTEGER NOT NULL,
  quiet_since INTEGER NOT NULL,
  failures INTEGER NOT NULL DEFAULT 0,
  failure TEXT,                                  -- JSON
  retry_at INTEGER NOT NULL DEFAULT 0,
  mark TEXT NOT NULL DEFAULT '0 0 0',            -- access log when last looked at: inode, size, mtime
  looked_at INTEGER NOT NULL DEFAULT 0
) STRICT;

-- What every pass asks for, however many sleep: those that are not simply asleep, those that must be up, those that the
-- name alone does not route.
CREATE INDEX instances_busy ON instances (phase) WHERE phase <> 'asleep';
CREATE INDEX instances_up ON instances (wanted) WHERE wanted = 'up';
CREATE INDEX instances_tcp ON instances (port) WHERE port IS NOT NULL;

-- Hosts besides NAME.domain.
CREATE TABLE hosts (
  host TEXT PRIMARY KEY,
  instance INTEGER NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
  place INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX hosts_of ON hosts (instance, place);

-- Work of several steps that was begun: after a crash it is finished (purge) or undone (create).
CREATE TABLE journal (
  instance INTEGER PRIMARY KEY REFERENCES instances (id) ON DELETE CASCADE,
  work TEXT NOT NULL CHECK (work IN ('create', 'purge')),
  at INTEGER NOT NULL
) STRICT;

-- The ledger. It keeps the name, because it outlives the instance.
CREATE TABLE events (
  id INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  instance INTEGER,
  name TEXT NOT NULL,
  kind TEXT NOT NULL,
  detail TEXT NOT NULL
) STRICT;
CREATE INDEX events_of ON events (instance, id);
