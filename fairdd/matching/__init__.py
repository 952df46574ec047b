"""The method: targets of each class (alignment), distances of embeddings or gradients, and what they work on."""
