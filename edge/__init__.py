"""The MEC aggregator: from a recording to KPI rows, as pure functions."""
