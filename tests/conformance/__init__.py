"""The outbox on every database: one suite, the same tests for each."""
