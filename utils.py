"""The public API under the names that users of dataset condensation import from utils. It has no logic of its own."""

from fairdd.datasets import DATASETS, get_dataset
from fairdd.datasets.base import Dataset, GroupedImages, denormalize, normalize
from fairdd.evaluation.metrics import (
    accuracy_table,
    demographic_parity_difference,
    deo_a,
    deo_m,
    equal_opportunity_difference,
    fairness_metrics,
    per_class_gap,
    prediction_table,
    summarize,
    worst_cell_accuracy,
    worst_group_accuracy,
)
from fairdd.evaluation.training import TrainConfig, evaluate_synset, predict, train_with_schedule
from fairdd.matching.alignment import ALIGNMENTS, Targets, barycenter_targets, class_mean_targets, per_group_targets
from fairdd.matching.augment import DiffAugment
from fairdd.matching.embedding import embedding_loss
from fairdd.matching.gradient import gradient_loss, match_loss
from fairdd.matching.synset import SynSet, expand_grid
from fairdd.method import Method
from main_DC import get_loops
from networks import get_eval_pool, get_network

__all__ = [
    "ALIGNMENTS", "DATASETS", "Dataset", "DiffAugment", "GroupedImages", "Method", "SynSet", "Targets", "TrainConfig",
    "accuracy_table", "barycenter_targets", "class_mean_targets", "demographic_parity_difference", "denormalize",
    "deo_a", "deo_m", "embedding_loss", "equal_opportunity_difference", "evaluate_synset", "expand_grid",
    "fairness_metrics", "get_dataset", "get_eval_pool", "get_loops", "get_network", "gradient_loss", "match_loss",
    "normalize", "per_class_gap", "per_group_targets", "predict", "prediction_table", "summarize",
    "train_with_schedule", "worst_cell_accuracy", "worst_group_accuracy",
]
