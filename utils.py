"""The shared face: what users of this field import from utils, by the names they know. No logic of its own."""

from fairdd.augment import DiffAugment
from fairdd.datasets import DATASETS, get_dataset
from fairdd.datasets.grouped import Dataset, GroupedImages, denormalise, normalise
from fairdd.fairness import (
    accuracy_table,
    class_gaps,
    demographic_parity,
    deo_a,
    deo_m,
    equal_opportunity,
    fairness_figures,
    prediction_table,
    summarise,
    worst_cell,
    worst_group,
)
from fairdd.flags import get_loops
from fairdd.matching import ALIGNMENTS, barycentre, embedding_loss, fairdd, gradient_losses, match_loss, vanilla
from fairdd.synset import SynSet, decode
from fairdd.training import Recipe, evaluate_synset, predict, train
from networks import get_eval_pool, get_network

__all__ = [
    "ALIGNMENTS", "DATASETS", "Dataset", "DiffAugment", "GroupedImages", "Recipe", "SynSet", "accuracy_table",
    "barycentre", "class_gaps", "decode", "demographic_parity", "denormalise", "deo_a", "deo_m", "embedding_loss",
    "equal_opportunity", "evaluate_synset", "fairdd", "fairness_figures", "get_dataset", "get_eval_pool", "get_loops",
    "get_network", "gradient_losses", "match_loss", "normalise", "predict", "prediction_table", "summarise", "train",
    "vanilla", "worst_cell", "worst_group",
]
