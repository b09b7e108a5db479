"""Kafka: settings, clients, one reader and one writer of topics; nothing of what is in the records."""
