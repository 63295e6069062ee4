-- Rows of an upload that were refused, sent once more, each as a message of its own: its line in the ledger counts the
-- corrections of that row from 1, and first_line is the row's line in its chunk. Of all other messages it is null.
ALTER TABLE ledger ADD COLUMN correction int CHECK (correction > 0);
-- Serves: was this row corrected, and what became of that? (gateway/sql/refused_rows.sql, gateway/upload_state.py)
CREATE INDEX ledger_corrections ON ledger (tenant_id, upload_id, chunk, first_line, correction)
    WHERE correction IS NOT NULL;
