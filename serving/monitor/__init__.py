"""Online drift: the detector of the kernel engine on the topic of embeddings, its state, and what an alarm starts."""
