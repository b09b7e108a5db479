"""The KServe server: V1, V2 (REST and gRPC), OpenAI's embeddings and CloudEvents in front of the served models."""
