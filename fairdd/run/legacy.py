"""Run folders written by version 0.1: their names for files, flags and metrics, read for one more release."""

from pathlib import Path

OLD_FILES = {"metrics_per_network.jsonl": "networks.jsonl", "dataset.json": "data.json",
             "projection.json": "embedding.json"}
OLD_METRICS = {"worst_cell": "worst_cell_accuracy", "worst_group": "worst_group_accuracy",
               "demographic_parity": "demographic_parity_difference",
               "equal_opportunity": "equal_opportunity_difference"}


def existing_file(folder: Path, name: str) -> Path:
    """Return the path of a run's file, under its old name if only that exists."""
    old = folder / OLD_FILES.get(name, name)
    return old if old.exists() and not (folder / name).exists() else folder / name


def upgrade_flags(content: dict) -> dict:
    """Return the content of a flags.json in today's form: {"flags", "versions", "entry", "non_default"}."""
    flags = dict(content["flags"])
    if flags.get("align") == "barycentre":
        flags["align"] = "barycenter"
    augmented = flags.pop("epoch_eval_augmented", None)
    has_own_epochs = augmented not in (None, flags.get("epoch_eval_train"))     # then --epoch_eval_train was not given
    matches_gradients = flags.get("outer_loop") is not None
    if "eval_overrides" not in flags and "entry" not in content:
        plain = matches_gradients and flags.get("dsa_strategy") == "none"
        override = {"strategy": "crop_noise"} | ({"epochs": augmented} if has_own_epochs else {})
        flags["eval_overrides"] = {"ConvNetBN": override} if plain else {}
    entry = content.get("entry", "main_DC.py" if matches_gradients else "main_DM.py")
    derived = {"FairDD", "outer_loop", "inner_loop", "eval_overrides"}
    derived |= {"warmup_epochs"} if matches_gradients else set()                # a flag of DM
    derived |= {"epoch_eval_train"} if has_own_epochs else set()
    non_default = content.get("non_default", [name for name in flags if name not in derived])
    return content | {"flags": flags, "entry": entry, "non_default": non_default}


def upgrade_metrics(metrics: dict) -> dict:
    """Return the metrics of one network, or their summary, under today's names."""
    return {OLD_METRICS.get(name, name): value for name, value in metrics.items()}
