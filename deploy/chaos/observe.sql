-- What the sinks do to their offsets and to the ledger, seen by PostgreSQL itself. Of transactions that are rolled back,
-- as a zombie's must be, nothing stays here. A ledger line that ON CONFLICT leaves out was written a second time.
CREATE SCHEMA chaos;
CREATE TABLE chaos.moved (
    topic text NOT NULL, partition int NOT NULL, from_offset bigint NOT NULL, to_offset bigint NOT NULL
);
CREATE TABLE chaos.written (topic text NOT NULL, partition int NOT NULL, log_offset bigint NOT NULL);

CREATE FUNCTION chaos.move() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO chaos.moved VALUES (new.topic, new.partition, old.next_offset, new.next_offset);
    RETURN new;
END $$;
CREATE FUNCTION chaos.write() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO chaos.written VALUES (new.topic, new.partition, new.log_offset);
    RETURN new;
END $$;
CREATE TRIGGER moved BEFORE UPDATE OF next_offset ON sink_offsets FOR EACH ROW EXECUTE FUNCTION chaos.move();
CREATE TRIGGER written BEFORE INSERT ON ledger FOR EACH ROW EXECUTE FUNCTION chaos.write();
