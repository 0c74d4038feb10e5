"""The operators' page: every view is a pure function of (recording, event time)."""
