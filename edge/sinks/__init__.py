"""Where final KPI rows go beside the recording: an outbox, and the forwarder that empties it."""
