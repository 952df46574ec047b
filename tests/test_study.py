"""A study makes each run once, goes on after a run that fails, and its tables come from the folders of the runs."""

import json
import statistics
from pathlib import Path

import pytest

from fairdd.core.errors import UserError

FLAGS = ("main_DM.py --dataset Colored_Digits --model ConvNetD1W32 --im_size 8 --ipc 1 --batch_real 10 --num_eval 2 "
         "--epoch_eval_train 1 --Iteration")


@pytest.fixture
def study(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "scripts"))
    import study

    return study


def test_a_study_makes_each_run_once_and_its_table_from_the_runs(study, tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parent.parent)
    args = study.make_parser("").parse_args(["--out", str(tmp_path), "--seeds", "2"])
    rows = {"DM, FairDD": f"{FLAGS} 1 --FairDD", "wrong": f"{FLAGS} 1 --init nothing", "random": f"{FLAGS} 0"}
    with pytest.raises(UserError, match="2 of 6 runs failed"):
        study.run_study(args, study.Study("trial", "a trial", "Small.", {"Colored_Digits": rows}))
    del rows["wrong"]
    results = {path: path.stat().st_mtime_ns for path in tmp_path.glob("Colored_Digits/*/seed*/results.json")}
    assert len(results) == 4
    study.run_study(args, study.Study("trial", "a trial", "Small.", {"Colored_Digits": rows}))
    assert results == {path: path.stat().st_mtime_ns for path in results}

    text = (tmp_path / "trial_Colored_Digits.md").read_text()
    sets = []
    for seed in range(2):
        path = tmp_path / "Colored_Digits" / "DM_FairDD" / f"seed{seed}" / "metrics_per_network.jsonl"
        networks = [json.loads(line)["metrics"] for line in path.read_text().splitlines()]
        sets.append([statistics.mean(metrics[name] for metrics in networks) for name in ("accuracy", "DEO_M", "DEO_A")])
    cells = [f"{statistics.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"
             for values in zip(*sets, strict=True)]
    assert f"| DM, FairDD | 1 | 2 | {' | '.join(cells)} |" in text and f"python {rows['random']} --seed 0" in text
