"""The branches of the default settings."""

BRANCHES = ("audio", "visual")
