-- What a runner calls a run that is no process of this host. Of a process pid and pid_start say it, as before, and this is NULL: a
-- worker of an earlier build, which knows only processes, goes on reading and writing its rows while it hands over.
ALTER TABLE instances ADD COLUMN run_id TEXT;
