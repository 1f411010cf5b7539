-- What is asked for by phase or model is found in the order in which it is shown, however many there are of the others.
DROP INDEX instances_busy;
CREATE INDEX instances_phase ON instances (phase, name);
CREATE INDEX instances_model ON instances (model, name);

-- The order in which ports were given out; a port itself is found by its being unique.
DROP INDEX instances_tcp;
CREATE INDEX instances_tcp ON instances (id) WHERE port IS NOT NULL;
