-- Destroying is journalled too: what is left to do after the phase was written is done by the next acc.
CREATE TABLE journal_of_three (
  instance INTEGER PRIMARY KEY REFERENCES instances (id) ON DELETE CASCADE,
  work TEXT NOT NULL CHECK (work IN ('create', 'destroy', 'purge')),
  at INTEGER NOT NULL
) STRICT;
INSERT INTO journal_of_three SELECT instance, work, at FROM journal;
DROP TABLE journal;
ALTER TABLE journal_of_three RENAME TO journal;
