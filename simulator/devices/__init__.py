"""One device kind a file, each ending with MODEL."""
