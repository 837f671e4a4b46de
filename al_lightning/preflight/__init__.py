"""A rehearsal of a run on one batch: what it needs to stand in for what is not bought yet, and to leave no trace."""
