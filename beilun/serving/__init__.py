"""What operators and their programs see of a recording: data, API, access and page, read-only."""
