-- Why the last try to end a running operation did not work, and when that was. NULL: none was made, or not known: a worker of an earlier
-- build, which knows neither column, still ends its operations after an upgrade.
ALTER TABLE operations ADD COLUMN last_try_at INTEGER;
ALTER TABLE operations ADD COLUMN last_error TEXT;
