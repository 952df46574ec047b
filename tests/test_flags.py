"""Flags: the published names, the paper's defaults, what is derived, what is refused."""

import pytest

import networks
from fairdd.core.errors import UserError
from fairdd.flags import DSA, get_loops, parse

PUBLISHED = [
    "method", "dataset", "model", "ipc", "eval_mode", "num_exp", "num_eval", "epoch_eval_train", "Iteration", "lr_img",
    "lr_net", "batch_real", "batch_train", "init", "dsa_strategy", "data_path", "save_path", "dis_metric", "FairDD",
]
NEW = [
    "align", "seed", "data_seed", "device", "eval_every", "target_attr", "protected_attr", "skew", "im_size",
    "skip_bad_images", "save_every", "restart", "precision", "group_balance", "warmup_epochs", "factor", "labels",
    "tensorboard",
]
DERIVED = ["outer_loop", "inner_loop", "epoch_eval_augmented"]


def flags(line="", methods=("DM",)):
    return parse(list(methods), networks.find_network, ["S", "SS", *networks.EVAL_POOLS], line.split())


def dc(line=""):
    return flags(line, ("DC", "DSA"))


def test_the_list_of_flags_is_the_published_one_and_what_the_documents_name():
    assert sorted(flags().as_dict()) == sorted(PUBLISHED + NEW + DERIVED)


def test_the_papers_settings_hold_for_every_data_set_but_the_embedded_one():
    dm = flags("--dataset CelebA")
    assert (dm.model, dm.Iteration, dm.lr_img, dm.batch_real, dm.num_eval) == ("ConvNet", 20000, 1, 256, 10)
    assert (dm.dsa_strategy, dm.epoch_eval_train, dm.seed, dm.data_seed) == (DSA, 1000, 0, 30)
    plain, siamese = dc("--dataset CelebA"), dc("--dataset CelebA --method DSA")
    assert (plain.Iteration, plain.lr_img, plain.dsa_strategy, plain.epoch_eval_train) == (1000, 0.1, "none", 300)
    assert plain.epoch_eval_augmented == 1000 and dc("--epoch_eval_train 7").epoch_eval_augmented == 7
    assert (siamese.lr_img, siamese.dsa_strategy, siamese.epoch_eval_train) == (0.1, DSA, 1000)


@pytest.mark.parametrize(("ipc", "lr_img"), [(1, 1), (99, 1), (100, 10), (200, 10)])
def test_dm_takes_larger_steps_from_ipc_100_on(ipc, lr_img):
    assert flags(f"--dataset CelebA --ipc {ipc}").lr_img == lr_img
    assert flags(f"--dataset CelebA --ipc {ipc} --lr_img 3").lr_img == 3


def test_what_the_user_gives_wins_over_the_embedded_setting():
    mine = flags("--ipc 3 --model ConvNetD2W64 --Iteration 0 --batch_real 7 --dsa_strategy flip_color")
    assert (mine.ipc, mine.model, mine.Iteration, mine.batch_real) == (3, "ConvNetD2W64", 0, 7)
    assert mine.dsa_strategy == "flip_color"


@pytest.mark.parametrize(
    ("ipc", "loops"),
    [(1, (1, 1)), (10, (10, 50)), (20, (20, 25)), (30, (30, 20)), (40, (40, 15)), (50, (50, 10)), (51, (100, 10)),
     (100, (100, 10)), (500, (100, 10))],
)
def test_loops_are_the_published_table(ipc, loops):
    assert get_loops(ipc) == loops and (dc(f"--ipc {ipc}").outer_loop, dc(f"--ipc {ipc}").inner_loop) == loops


def test_between_published_entries_loops_are_linear():
    for ipc in range(1, 51):
        outer, inner = get_loops(ipc)
        assert outer == ipc and inner >= 1
    assert get_loops(15) == (15, 38) and get_loops(25) == (25, 22)


def test_flags_are_read_only():
    with pytest.raises(AssertionError):
        flags().ipc = 3


@pytest.mark.parametrize(
    ("line", "align"),
    [("", "vanilla"), ("--FairDD", "fairdd"), ("--align fairdd", "fairdd"), ("--FairDD --align fairdd", "fairdd"),
     ("--align barycenter", "barycenter")],
)
def test_fairdd_and_align_say_the_same(line, align):
    assert flags(line).align == align and flags(line).FairDD == (align == "fairdd")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--FairDD --align vanilla", "--align vanilla"),
        ("--ipc 0", "'0' is not a whole number from 1 on"),
        ("--ipc ten", "'ten' is not a whole number"),
        ("--lr_img nan", "'nan' is not a number above 0"),
        ("--lr_img -1", "'-1' is not a number above 0"),
        ("--skew 1.5", "at most 1"),
        ("--dataset MNIST", "Colored_MNIST_foreground"),
        ("--model ConvNot", "ConvNetW32"),
        ("--method DC", "DM"),
        ("--dsa_strategy color_blur", "'blur'"),
        ("--dis_metric cos", "embeddings"),
        ("--device cuda:99", "--device cuda:99 cannot be used here"),
        ("--device abacus", "--device abacus cannot be used here"),
        ("--iterations 5", "--iterations"),
        ("--iter 5", "--iter"),
        ("--eval_mode X", "S"),
        ("--seed -1", "'-1' is not a whole number from 0 on"),
    ],
)
def test_a_wrong_flag_is_refused_in_words(line, words):
    with pytest.raises(UserError) as error:
        flags(line)
    assert words in str(error.value)


def test_dc_without_siamese_augmentation_refuses_a_strategy():
    with pytest.raises(UserError, match="--method DSA"):
        dc("--dsa_strategy color")
    assert dc("--dsa_strategy none").dsa_strategy == "none"


@pytest.mark.parametrize("method", ["DC", "DSA"])
@pytest.mark.parametrize(("line", "words"), [("--dis_metric l1", "embeddings"), ("--warmup_epochs 1", "inner loops")])
def test_gradient_matching_refuses_what_belongs_to_embeddings(method, line, words):
    with pytest.raises(UserError, match=words):
        dc(f"--method {method} {line}")


def test_what_goes_beyond_the_paper_is_off_by_default():
    for args in (flags(), dc()):
        assert not args.group_balance and not args.warmup_epochs and args.dis_metric == "ours" and args.factor == 1


def test_default_folders_differ_where_runs_differ():
    lines = ["", "--FairDD", "--align barycenter", "--Iteration 0", "--Iteration 0 --init balanced", "--seed 1",
             "--ipc 1", "--init noise", "--dataset CelebA", "--model ConvNet", "--group_balance",
             "--dis_metric l1", "--warmup_epochs 10", "--warmup_epochs 1", "--factor 2", "--factor 2 --Iteration 0"]
    assert len({flags(line).save_path for line in lines}) == len(lines)
