"""The stream worker: texts off a topic, their vectors onto another, each exactly once."""
