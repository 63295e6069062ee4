-- Serves: GET /uploads, the newest first (gateway/activity.py)
CREATE INDEX uploads_newest ON uploads (tenant_id, opened_at DESC, upload_id DESC);
