-- Columns and events by the names that the code and the documents use.
ALTER TABLE instances RENAME COLUMN mark TO log_mark;
ALTER TABLE instances RENAME COLUMN looked_at TO checked_at;
UPDATE events SET kind = 'stop_cancelled' WHERE kind = 'called_off';
UPDATE events SET kind = 'port_changed' WHERE kind = 'moved' AND detail LIKE 'from port %';

-- A worker of an earlier build reads rows while it finishes its requests after an upgrade, by the old names.
ALTER TABLE instances ADD COLUMN wanted TEXT AS (desired) VIRTUAL;
ALTER TABLE instances ADD COLUMN mark TEXT AS (log_mark) VIRTUAL;
ALTER TABLE instances ADD COLUMN looked_at INTEGER AS (checked_at) VIRTUAL;
