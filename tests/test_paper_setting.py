"""The table of the paper's setting holds every evaluation of a run, and those of its saved sets made later."""

import statistics
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from fairdd.report.load_runs import read_run

ROOT = Path(__file__).parent.parent
FLAGS = ["--dataset", "Colored_Digits", "--model", "ConvNetD1W32", "--im_size", "8", "--ipc", "1", "--batch_real", "10",
         "--num_eval", "2", "--epoch_eval_train", "1"]


@pytest.fixture
def script(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import paper_setting

    return paper_setting


def run(*command):
    subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, check=True, capture_output=True, timeout=300)


def test_the_table_holds_the_evaluations_of_a_run_and_of_its_saved_sets(script, tmp_path):
    folder = script.folder_of(tmp_path, script.DATASET, "DM + FairDD") / "seed0"
    run("main_DM.py", "--FairDD", "--Iteration", 2, "--eval_every", 2, *FLAGS, "--save_path", folder)
    shorter = tmp_path / "shorter"
    run("main_DM.py", "--FairDD", "--Iteration", 1, *FLAGS, "--save_path", shorter)
    run("-m", "fairdd.evaluate", shorter, "--out", folder.with_name("seed0_iteration1"))

    script.write_results(Namespace(out=tmp_path, tables=tmp_path / "tables"), script.STUDY)
    lines = (tmp_path / "tables" / "paper_setting_table.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| DM + FairDD")]
    assert [row[:3] for row in rows] == [["DM + FairDD", str(iteration), "2"] for iteration in range(3)]
    networks = read_run(shorter).networks
    values = [f"{networks[name].mean():.2f} ± {statistics.stdev(networks[name]):.2f}" for name in script.METRICS]
    assert rows[1][3:] == values
    assert (tmp_path / "tables" / "paper_setting.png").stat().st_size > 1000
