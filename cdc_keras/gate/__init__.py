"""The gate (Sec. 3): attention inferred from T, spliced into any functional classifier."""
