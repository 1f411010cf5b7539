-- The oldest version of acc's database whose programs can use this one, see `usable_as_it_is` in mod.rs. A migration that only adds what
-- they need not know leaves it; any other sets it to its own number. Programs of version 10 and earlier do not ask: they refuse every
-- database that is newer than they are.
CREATE TABLE compatibility (oldest INTEGER NOT NULL) STRICT;
INSERT INTO compatibility (oldest) VALUES (11);
