"""One verb or noun a file."""
