-- Wall clock less boot clock in milliseconds when the row was last written: when it has changed, the wall clock was set. NULL: not known.
ALTER TABLE instances ADD COLUMN clock INTEGER;
