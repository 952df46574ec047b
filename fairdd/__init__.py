"""FairDD: fair dataset distillation. `matching` holds the method; the other modules carry it."""
