"""A native plugin in a confined process of its own (clauses T2, S1)."""
