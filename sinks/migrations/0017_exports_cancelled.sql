-- Exports that nobody needs any more (DELETE /exports/{id}).
ALTER TABLE exports DROP CONSTRAINT exports_state_check, ADD CONSTRAINT exports_state_check
    CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled', 'expired'));
-- Serves: the worker, which looks for files whose time is over
DROP INDEX exports_files;
CREATE INDEX exports_files ON exports (expires_at) WHERE state IN ('done', 'cancelled');
