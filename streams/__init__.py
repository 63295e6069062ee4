"""Stream processors on Faust, an agent a source topic: dedup of ingestion, stock, prices."""
