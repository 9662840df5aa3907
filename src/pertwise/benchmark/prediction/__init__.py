"""The prediction benchmark: every method on the same splits, one honest table."""
