"""Formats of what travels on the topics: pure, bytes in and bytes out, no broker."""
