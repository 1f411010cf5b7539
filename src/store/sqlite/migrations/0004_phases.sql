-- Where the time of a wake went: JSON, in microseconds (see service::phases). NULL: not a wake, or not known.
ALTER TABLE events ADD COLUMN phases TEXT;
