"""Token sequences through a model, by the fastest way that gives the model's own vectors."""
