"""Flags: the published names, the paper's defaults, derived values, refusals, and the folder that a run goes to."""

import argparse
import itertools

import pytest

import main_DC
import main_DM
import networks
from fairdd.core.errors import UserError
from fairdd.flags import DSA, RUNTIME_FLAGS, comparison_path, make_parser
from main_DC import get_loops

PUBLISHED = [
    "method", "dataset", "model", "ipc", "eval_mode", "num_exp", "num_eval", "epoch_eval_train", "Iteration", "lr_img",
    "lr_net", "batch_real", "batch_train", "init", "dsa_strategy", "data_path", "save_path", "dis_metric", "FairDD",
]
NEW = [
    "align", "seed", "data_seed", "device", "eval_every", "target_attr", "protected_attr", "skew", "im_size",
    "skip_bad_images", "save_every", "restart", "precision", "group_balance", "factor", "labels", "tensorboard",
    "quiet", "rare_cells", "path_column", "unknown", "split_by", "follow_links",
    "cluster", "max_clustered", "eval_recipe",
    "groups", "groups_of", "group_features", "group_noise", "known_groups", "unknown_groups",
    "select", "select_by", "min_accuracy", "val_share", "device_data", "compile", "minorities",
    "train_without", "test_without",
]
IDC_FLAGS = ["pixel_steps", "train_net", "n_data", "cutmix", "batch_syn_max", "cluster_every"]
CAFE_FLAGS = ["max_steps", "max_epochs", "watch"]
DERIVED = ["eval_overrides", "non_default", "entry"]
METHODS = {main_DM: [main_DM.METHOD], main_DC: [main_DC.DC, main_DC.DSA]}


def dm(line=""):
    return main_DM.parse(line.split())[1]


def dc(line=""):
    return main_DC.parse(line.split())[1]


def test_flags_are_the_published_ones_and_the_documented_ones():
    assert sorted(dm().as_dict()) == sorted([*PUBLISHED, *NEW, *DERIVED, "warmup_epochs", *CAFE_FLAGS])
    assert sorted(dc().as_dict()) == sorted([*PUBLISHED, *NEW, *DERIVED, "outer_loop", "inner_loop", *IDC_FLAGS])


def test_paper_settings_hold_for_every_data_set_but_the_embedded_one():
    args = dm("--dataset CelebA")
    assert (args.model, args.Iteration, args.lr_img, args.batch_real, args.num_eval) == ("ConvNet", 20000, 1, 256, 10)
    assert (args.dsa_strategy, args.epoch_eval_train, args.seed, args.data_seed) == (DSA, 1000, 0, 30)
    plain, siamese = dc("--dataset CelebA"), dc("--dataset CelebA --method DSA")
    assert (plain.Iteration, plain.lr_img, plain.dsa_strategy, plain.epoch_eval_train) == (1000, 0.1, "none", 300)
    assert plain.eval_overrides == {"ConvNetBN": {"strategy": "crop_noise", "epochs": 1000}}
    assert (siamese.lr_img, siamese.dsa_strategy, siamese.epoch_eval_train) == (0.1, DSA, 1000)
    assert not siamese.eval_overrides and not args.eval_overrides


@pytest.mark.parametrize("epochs", [7, 300])
def test_given_epochs_hold_for_every_network(epochs):
    args = dc(f"--dataset CelebA --epoch_eval_train {epochs}")
    assert args.epoch_eval_train == epochs and args.eval_overrides == {"ConvNetBN": {"strategy": "crop_noise"}}
    assert "epoch_eval_train" in args.non_default       # also where 300 is the default: it changes ConvNetBN's


@pytest.mark.parametrize(("ipc", "lr_img"), [(1, 1), (99, 1), (100, 10), (200, 10)])
def test_dm_takes_larger_steps_from_ipc_100_on(ipc, lr_img):
    assert dm(f"--dataset CelebA --ipc {ipc}").lr_img == lr_img
    assert dm(f"--dataset CelebA --ipc {ipc} --lr_img 3").lr_img == 3


def test_given_flags_override_the_defaults_of_the_embedded_data_set():
    args = dm("--ipc 3 --model ConvNetD2W64 --Iteration 0 --batch_real 7 --dsa_strategy flip_color")
    assert (args.ipc, args.model, args.Iteration, args.batch_real) == (3, "ConvNetD2W64", 0, 7)
    assert args.dsa_strategy == "flip_color"


@pytest.mark.parametrize(
    ("ipc", "loops"),
    [(1, (1, 1)), (10, (10, 50)), (20, (20, 25)), (30, (30, 20)), (40, (40, 15)), (50, (50, 10)), (51, (100, 10)),
     (100, (100, 10)), (500, (100, 10))],
)
def test_loops_are_the_published_table(ipc, loops):
    assert get_loops(ipc) == loops and (dc(f"--ipc {ipc}").outer_loop, dc(f"--ipc {ipc}").inner_loop) == loops


def test_loops_are_linear_between_published_entries():
    for ipc in range(1, 51):
        outer, inner = get_loops(ipc)
        assert outer == ipc and inner >= 1
    assert get_loops(15) == (15, 38) and get_loops(25) == (25, 22)


def test_given_loops_override_the_table():
    args = dc("--ipc 10 --outer_loop 3")
    assert (args.outer_loop, args.inner_loop) == (3, 50)


def test_flags_are_read_only():
    with pytest.raises(AssertionError):
        dm().ipc = 3


@pytest.mark.parametrize(
    ("line", "align"),
    [("", "vanilla"), ("--FairDD", "fairdd"), ("--align fairdd", "fairdd"), ("--FairDD --align fairdd", "fairdd"),
     ("--align barycenter", "barycenter"), ("--align barycentre", "barycenter")],
)
def test_fairdd_and_align_mean_the_same(line, align):
    assert dm(line).align == align and dm(line).FairDD == (align == "fairdd")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--FairDD --align vanilla", "--align vanilla"),
        ("--ipc 0", "'0' is not an integer of at least 1"),
        ("--ipc ten", "'ten' is not an integer"),
        ("--lr_img nan", "'nan' is not a finite number above 0"),
        ("--lr_img inf", "'inf' is not a finite number above 0"),
        ("--lr_img -1", "'-1' is not a finite number above 0"),
        ("--skew 1.5", "'1.5' is not a number from 0 to 1"),
        ("--skew -0.1", "'-0.1' is not a number from 0 to 1"),
        ("--dataset MNIST", "Colored_MNIST_foreground"),
        ("--model ConvNot", "ConvNetW32"),
        ("--method DC", "DM"),
        ("--dsa_strategy color_blur", "'blur'"),
        ("--dis_metric cos", "--dis_metric cos is not supported by DM; supported: ours"),
        ("--device cuda:99", "--device cuda:99 cannot be used here"),
        ("--device abacus", "--device abacus cannot be used here"),
        ("--iterations 5", "--iterations"),
        ("--iter 5", "--iter"),
        ("--eval_mode X", "S"),
        ("--seed -1", "'-1' is not an integer of at least 0"),
        ("--outer_loop 3", "--outer_loop"),
    ],
)
def test_wrong_flags_are_refused_with_a_message(line, message):
    with pytest.raises(UserError) as error:
        dm(line)
    assert message in str(error.value)


@pytest.mark.filterwarnings("ignore:'mkldnn' is no longer used")
@pytest.mark.parametrize("device", [
    "meta", "mps", "xpu", "hpu", "mtia", "xla", "lazy", "ipu", "mkldnn", "opengl", "opencl", "ideep", "hip", "ve",
    "fpga", "maia", "vulkan", "privateuseone", "cuda:x", "cpu:0", "",
])
def test_every_device_that_torch_names_works_or_is_refused_with_a_message(device):
    try:
        name = main_DM.parse(["--device", device])[1].device
    except UserError as error:
        assert f"--device {device} cannot be used here: " in str(error) and len(str(error)) < 300
    else:
        assert name == "cpu" or device in ("mps", "xpu"), name


@pytest.mark.parametrize("skew", [0, 0.25, 1])
def test_skew_is_any_share(skew):
    assert dm(f"--skew {skew}").skew == skew


def test_dc_refuses_augmentation_while_matching():
    with pytest.raises(UserError, match="--method DSA"):
        dc("--dsa_strategy color")
    assert dc("--dsa_strategy none").dsa_strategy == "none"


@pytest.mark.parametrize("method", ["DC", "DSA"])
@pytest.mark.parametrize(("line", "message"), [("--dis_metric l1", "supported: ours"), ("--warmup_epochs 1", "--help")])
def test_gradient_matching_refuses_flags_of_embedding_matching(method, line, message):
    with pytest.raises(UserError, match=message):
        dc(f"--method {method} {line}")


def test_additions_to_the_paper_are_off_by_default():
    for args in (dm(), dc()):
        assert not args.group_balance and args.dis_metric == "ours" and args.factor == 1 and args.precision == "fp32"
    assert dm().warmup_epochs == 0


@pytest.mark.parametrize("flag", ["--data_path", "--save_path", "--labels"])
def test_a_tilde_after_an_equals_sign_is_the_home_folder(flag, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    args = main_DM.parse([f"{flag}=~/some/path"])[1]
    assert getattr(args, flag[2:]) == f"{tmp_path}/some/path"


def test_each_of_several_label_files_may_be_in_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    labels = dm("--labels=~/train.csv,other.csv,~/test.csv").labels
    assert labels == f"{tmp_path}/train.csv,other.csv,{tmp_path}/test.csv"


def test_non_default_flags_are_those_that_repeat_the_run():
    for entry, line in [(main_DM, "--ipc 50 --dataset CelebA --FairDD --lr_img 3 --quiet --restart --save_path x"),
                        (main_DC, "--method DSA --inner_loop 7 --skip_bad_images --dataset BFFHQ --epoch_eval_train 9"),
                        (main_DC, "--dataset CelebA --epoch_eval_train 300")]:
        args = entry.parse(line.split())[1].as_dict()
        flags = {name: args[name] for name in args["non_default"]}
        again = entry.parse([arg for name, value in flags.items()
                             for arg in ([f"--{name}"] if value is True else [f"--{name}", str(value)])])[1].as_dict()
        names = args.keys() - {"save_path", "quiet", "restart"}
        assert {name: args[name] for name in names} == {name: again[name] for name in names}
        assert not {"quiet", "restart", "save_path", "FairDD"} & flags.keys()
    assert dm().non_default == ["method", "dataset", "ipc"]


def flags_of(entry):
    """Return the flags of an entry, as argparse holds them, by name."""
    parser = make_parser(METHODS[entry], networks.network_factory, ["S", "SS", *networks.EVAL_POOLS])
    return {action.dest: action for action in parser._actions if action.option_strings != ["-h", "--help"]}


def example_values(action):
    """Return the command-line forms of a flag: not given, and with up to three values that its type accepts."""
    if action.nargs == 0:
        return [[], action.option_strings[:1]]
    texts = action.choices or {"dis_metric": ["l1", "mse"], "device": ["cpu"], "groups": ["kmeans:3", "x.csv"]}.get(
        action.dest, ["3", "7", "0.25", "0.75", "VGG11", "MLP", "none", "flip"])
    return [[], *([action.option_strings[0], text] for text in texts if is_accepted(action, text))][:4]


def is_accepted(action, text):
    try:
        return str((action.type or str)(text)) and text != "DSA"       # whose defaults need a flag that DC refuses
    except argparse.ArgumentTypeError:
        return False


CASES = [(entry, name) for entry in METHODS for name in flags_of(entry) if name != "save_path"]


@pytest.mark.parametrize(("entry", "name"), CASES, ids=lambda case: getattr(case, "__name__", case))
def test_default_folders_differ_if_and_only_if_a_flag_changes_results(entry, name):
    for base in ([], ["--dataset", "Folder"], ["--Iteration", "0"], ["--FairDD"],
                 ["--known_groups", "0.5"]):
        changes_results = name not in RUNTIME_FLAGS or (name == "data_path" and "Folder" in base)
        runs = []
        for flags in example_values(flags_of(entry)[name]):
            try:
                runs.append(entry.parse([*base, *flags])[1])
            except UserError:                   # a contradiction of base and flag, an unsupported distance
                continue
        for run, other in itertools.combinations(runs, 2):
            is_same_flag = getattr(run, name) == getattr(other, name)
            assert (run.save_path == other.save_path) == (is_same_flag or not changes_results), (base, name)
            assert (comparison_path(run) == comparison_path(other)) == (run.save_path == other.save_path) \
                or name in ("align", "FairDD")


def test_the_folder_of_a_comparison_is_the_given_one_or_names_no_alignment():
    assert comparison_path(dm("--save_path some/where")) == "some/where"
    assert comparison_path(dm("--ipc 3 --seed 1")) == comparison_path(dm("--ipc 3 --seed 1 --FairDD"))
    assert "_comparison_" in comparison_path(dm())
