"""The wire contract, and the way from MQTT bytes to a journalled recording."""
