-- Columns and events by the names that the code and the documents use.
ALTER TABLE instances RENAME COLUMN mark TO log_mark;
ALTER TABLE instances RENAME COLUMN looked_at TO checked_at;
UPDATE events SET kind = 'stop_cancelled' WHERE kind = 'called_off';
UPDATE events SET kind = 'port_changed' WHERE kind = 'moved' AND detail LIKE 'from port %';
