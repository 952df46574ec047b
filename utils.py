"""The shared face: what users of this field import from utils, by the names they know. No logic of its own."""

from fairdd.matching.augment import DiffAugment
from fairdd.datasets import DATASETS, get_dataset
from fairdd.datasets.base import Dataset, GroupedImages, denormalize, normalize
from fairdd.evaluation.metrics import (
    accuracy_table,
    per_class_gap,
    demographic_parity,
    deo_a,
    deo_m,
    equal_opportunity,
    fairness_metrics,
    prediction_table,
    summarize,
    worst_cell,
    worst_group,
)
from fairdd.flags import get_loops
from fairdd.matching.gradient import ALIGNMENTS, barycenter, embedding_loss, fairdd, gradient_losses, match_loss, vanilla
from fairdd.matching.synset import SynSet, expand_grid
from fairdd.evaluation.training import TrainConfig, evaluate_synset, predict, train
from networks import get_eval_pool, get_network

__all__ = [
    "ALIGNMENTS", "DATASETS", "Dataset", "DiffAugment", "GroupedImages", "Recipe", "SynSet", "accuracy_table",
    "barycenter", "per_class_gap", "expand_grid", "demographic_parity", "denormalize", "deo_a", "deo_m", "embedding_loss",
    "equal_opportunity", "evaluate_synset", "fairdd", "fairness_metrics", "get_dataset", "get_eval_pool", "get_loops",
    "get_network", "gradient_losses", "match_loss", "normalize", "predict", "prediction_table", "summarize", "train",
    "vanilla", "worst_cell", "worst_group",
]
