"""Run folders written by version 0.1 can be reported, evaluated and exported; their files are written here by hand."""

import json
import re

import pytest
import torch
from PIL import Image

import main_DC
import main_DM
from fairdd import evaluate, export
from fairdd.datasets import get_dataset
from fairdd.report.__main__ import main as report
from fairdd.run.context import evaluation_config
from fairdd.run.legacy import upgrade_flags
from networks import get_eval_pool, network_factory

OLD_FLAGS = {       # of every entry, in the order of version 0.1
    "method": "DM", "dataset": "Colored_Digits", "model": "ConvNetD1W32", "ipc": 1, "factor": 1, "init": "real",
    "Iteration": 2, "num_exp": 1, "FairDD": False, "align": "barycentre", "lr_img": 10.0, "batch_real": 20,
    "group_balance": False, "dsa_strategy": "flip", "dis_metric": "ours", "warmup_epochs": 0, "eval_mode": "S",
    "eval_every": 0, "num_eval": 2, "epoch_eval_train": 1, "lr_net": 0.01, "batch_train": 256, "data_path": "data",
    "data_seed": 30, "labels": None, "target_attr": None, "protected_attr": None, "skew": None, "im_size": 8,
    "skip_bad_images": False, "save_path": "elsewhere", "save_every": 500, "restart": False, "tensorboard": False,
    "seed": 3, "device": "cpu", "precision": "fp32", "epoch_eval_augmented": 1, "outer_loop": None, "inner_loop": None,
}


def old_metrics(network):
    """Return the metrics of a network under the names of version 0.1."""
    table = [[10.0 * (network + 1)] * 10 for _ in range(10)]
    return {"accuracy": 10.0 + 20 * network, "DEO_M": 30.0, "DEO_A": 20.0, "worst_cell": 1.5, "worst_group": 2.5,
            "demographic_parity": 3.5, "equal_opportunity": None, "table": table}


def old_summary():
    """Return the summary of the two networks, as results.json of version 0.1 has it."""
    summary = {name: {"mean": value, "std": 0.0, "n": 2} for name, value in old_metrics(0).items() if name != "table"}
    summary["accuracy"] = {"mean": 20.0, "std": 200**0.5, "n": 2}
    return summary | {"table": [[15.0] * 10] * 10, "table_std": [[0.0] * 10] * 10}


@pytest.fixture
def old_run(tmp_path):
    """The folder of a finished run of version 0.1."""
    return write_old_run(tmp_path / "run", OLD_FLAGS)


def write_old_run(folder, flags):
    folder.mkdir()
    train = get_dataset("Colored_Digits", im_size=8).train
    names = {"class_names": list(train.class_names), "group_names": list(train.group_names)}
    points = {"points": [[0.0, 1.0], [1.0, 0.0]], "labels": [0, 1]}
    networks = [{"experiment": 0, "iteration": 2, "model": "ConvNetD1W32", "network": k, "figures": old_metrics(k)}
                for k in range(2)]
    evaluation = {"experiment": 0, "iteration": 2, "model": "ConvNetD1W32",
                  "networks": [line["figures"] for line in networks]}
    write_json(folder / "flags.json", {"flags": flags, "versions": {"python": "3.11", "torch": "2.4"}})
    write_json(folder / "results.json",
               old_summary() | {"model": "ConvNetD1W32", "by_model": {"ConvNetD1W32": old_summary()}} | names)
    write_json(folder / "data.json", {"name": "Colored_Digits", **names, "train": [[12] * 10] * 10,
                                      "test": [[6] * 10] * 10, "notes": []})
    write_json(folder / "embedding.json", {"real": points | {"groups": [0, 1]}, "start": points, "end": points,
                                           "share": 0.5})
    write_json(folder / "time.json", {"minutes": 1.5})
    (folder / "networks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in networks))
    (folder / "evaluations.jsonl").write_text(json.dumps(evaluation) + "\n")
    images = train.batch(torch.stack([(train.labels == label).nonzero()[0, 0] for label in range(10)]))
    torch.save({"data": [[images, torch.arange(10)]], "factor": 1, "mean": list(train.mean), "std": list(train.std),
                **names}, folder / "synthetic.pt")
    for iteration in (0, 2):
        Image.new("RGB", (68, 662)).save(folder / f"experiment0_iteration0000{iteration}.png")
    return folder


def write_json(path, content):
    path.write_text(json.dumps(content, indent=1) + "\n")


def test_it_is_reported_with_todays_names_of_its_metrics(old_run, tmp_path, capsys):
    report([str(old_run)])
    assert "DM + barycenter  20.00 ± 14.14  30.00 ± 0.00  20.00 ± 0.00" in capsys.readouterr().out
    report([str(old_run), "--out", str(tmp_path / "report")])
    page, csv, markdown = ((tmp_path / "report" / f"report.{suffix}").read_text() for suffix in ("html", "csv", "md"))
    assert "--align barycenter" in page and "barycentre" not in page
    assert all(name in csv for name in ("worst_cell_accuracy", "worst_group_accuracy", "demographic_parity_difference"))
    assert not re.search(r"\bworst_cell\b", csv)
    assert "minutes 1.5" in markdown and "torch 2.4" in markdown and "python main_DM.py --method DM" in markdown
    assert "50 % of the variance" in page and "python main_DM.py --method DM" in page


def test_its_set_is_evaluated_with_its_own_flags(old_run, tmp_path, capsys):
    evaluate.main([str(old_run), "--out", str(tmp_path / "out")])
    record = json.loads((tmp_path / "out" / "flags.json").read_text())["flags"]
    assert (record["seed"], record["num_eval"], record["model"], record["im_size"]) == (3, 2, ["ConvNetD1W32"], 8)
    assert record["trained_on"] == "DM + barycenter" and record["dsa_strategy"] == "flip"
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["accuracy"]["n"] == 2 and "worst_cell_accuracy" in results
    report([str(old_run), str(tmp_path / "out")])
    assert capsys.readouterr().out.count("DM + barycenter  ") >= 2


@pytest.mark.parametrize("output", ["folder", "npz", "pt"])
def test_its_set_is_exported(old_run, tmp_path, output):
    export.main([str(old_run), str(tmp_path / f"out.{output}"), "--format", output])
    images, labels = torch.load(old_run / "synthetic.pt", weights_only=True)["data"][0]
    if output == "pt":
        exported = torch.load(tmp_path / "out.pt", weights_only=True)
        assert torch.equal(exported[0], images) and torch.equal(exported[1], labels)
    elif output == "folder":
        info = json.loads((tmp_path / "out.folder" / "info.json").read_text())
        assert info["flags"]["align"] == "barycenter" and len(list((tmp_path / "out.folder").rglob("*.png"))) == 10


@pytest.mark.parametrize("align", ["barycentre", "barycenter"])
def test_the_same_command_finds_it_finished(old_run, capsys, align):
    main_DM.main(["--model", "ConvNetD1W32", "--ipc", "1", "--align", align, "--Iteration", "2", "--batch_real", "20",
                  "--dsa_strategy", "flip", "--num_eval", "2", "--epoch_eval_train", "1", "--im_size", "8",
                  "--seed", "3", "--save_path", str(old_run)])
    assert "this run is finished" in capsys.readouterr().out


def test_another_command_is_refused_there(old_run, capsys):
    with pytest.raises(SystemExit):
        main_DM.main(["--save_path", str(old_run)])
    assert "holds a run with model = ConvNetD1W32" in capsys.readouterr().err


DC_FLAGS = OLD_FLAGS | {"method": "DC", "align": "fairdd", "FairDD": True, "dsa_strategy": "none", "outer_loop": 1,
                        "inner_loop": 1, "epoch_eval_train": 300, "epoch_eval_augmented": 1000}


@pytest.mark.parametrize(("changes", "expected"), [
    ({}, (1000, "crop_noise")), ({"epoch_eval_augmented": 300}, (300, "crop_noise")),
    ({"method": "DSA", "dsa_strategy": "flip"}, (300, "flip"))])
def test_batch_norm_networks_are_trained_as_its_dc_trained_them(tmp_path, changes, expected):
    folder = write_old_run(tmp_path / "run", DC_FLAGS | changes)
    args = evaluate.parse_flags(network_factory, get_eval_pool, [str(folder), "--model", "ConvNet", "ConvNetBN"])
    plain, batch_norm = (evaluation_config(args, model) for model in args.model)
    assert (batch_norm.epochs, batch_norm.strategy) == expected
    assert (plain.epochs, plain.strategy) == (300, (DC_FLAGS | changes)["dsa_strategy"])


def test_upgraded_flags_are_those_of_todays_entry():
    args = main_DC.parse(["--dataset", "UTKface", "--FairDD"])[1].as_dict()
    old = DC_FLAGS | {name: args[name] for name in DC_FLAGS.keys() & args.keys()}
    record = upgrade_flags({"flags": old, "versions": {}})
    assert record["entry"] == args["entry"] == "main_DC.py"
    assert {name: record["flags"][name] for name in args.keys() & record["flags"]} == {
        name: args[name] for name in args.keys() & record["flags"]}
    new = {"quiet", "non_default", "entry", "rare_cells", "path_column", "unknown", "split_by", "follow_links",
           "cluster", "max_clustered", "eval_recipe", "pixel_steps", "train_net", "n_data", "cutmix", "batch_syn_max",
           "cluster_every", "groups", "groups_of", "group_features", "group_noise", "known_groups", "unknown_groups",
           "select", "select_by", "min_accuracy", "val_share", "device_data", "compile", "minorities",
           "train_without", "test_without"}
    assert record["flags"].keys() >= args.keys() - new
