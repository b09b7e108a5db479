"""How Kafka is reached: settings, clients, topics; nothing of what is in the records."""
