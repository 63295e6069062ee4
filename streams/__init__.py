"""Stream processors on Faust: dedup now; stock and prices move in beside it."""
