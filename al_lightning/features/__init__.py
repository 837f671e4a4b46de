"""Features: one vector per record, and the clusters they form."""
