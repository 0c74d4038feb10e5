"""The application: the verbs that compose simulator and edge."""
