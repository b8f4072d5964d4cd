"""The version of the code and of the files that it writes."""

VERSION = "0.1.0"
