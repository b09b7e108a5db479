"""Dynamic batching: texts of many requests through one encoder, in batches bounded by tokens."""
