-- The operator's wish is the desired state, in the table and in the events.
ALTER TABLE instances RENAME COLUMN wanted TO desired;
UPDATE events SET kind = 'desired' WHERE kind = 'wanted';
