"""Training groups: clusters, files, noise and partial labels are recomputed; test images keep their true groups."""

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from refusal import refusal
from sklearn.cluster import DBSCAN, KMeans
from sklearn.metrics import adjusted_rand_score
from test_datasets_folder import HEADER, make_rows, write_images
from test_datasets_folder import write_csv as write_table

import main_DC
import main_DM
from fairdd import evaluate
from fairdd.core.errors import UserError
from fairdd.core.rng import key_to_seed
from fairdd.datasets.base import UNKNOWN, GroupedImages
from fairdd.evaluation.training import predict
from fairdd.groups import agreement, batch_clusters, features, file, noise, partial, pseudo, with_training_groups
from fairdd.matching.alignment import ALIGNMENTS, class_mean_targets, per_group_targets, segment_sum
from fairdd.matching.embedding import embedding_loss
from fairdd.matching.features import feature_loss
from fairdd.matching.gradient import gradient_loss
from fairdd.report.comparison import pooling_key
from fairdd.report.load_runs import read_run
from fairdd.run.context import Context, RealBatch
from fairdd.run.folder import read_json
from fairdd.run.loop import load_data
from networks import get_network

SMALL = ["--model", "ConvNetD1W32", "--im_size", "8", "--num_eval", "1", "--epoch_eval_train", "1", "--ipc", "1",
         "--batch_real", "20", "--Iteration", "2", "--quiet"]
KEY = (0, "groups")


@functools.cache
def digits():
    """Return the embedded digits at 8 x 8 pixels."""
    return load_data(main_DM.parse(SMALL)[1])


def with_groups(line):
    """Return the digits with the training groups that the flags ask for."""
    method, args = main_DM.parse([*SMALL, *line.split()])
    context = Context(None, args, method, digits().train, digits().test, get_network, [])
    return with_training_groups(digits(), args, context.init_network)


def pixels(rows):
    """Return the pixels of training digits in [0, 1]. (n,) -> (n, 192)"""
    return digits().train.images[rows].flatten(1).numpy() / np.float32(255)


def made_up(labels, groups, num_groups=3):
    """Return black images with these labels and groups."""
    images = torch.zeros(len(labels), 3, 8, 8, dtype=torch.uint8)
    names = tuple(map(str, range(num_groups)))
    return GroupedImages(images, torch.tensor(labels), torch.tensor(groups), ("a", "b"), names, (0.5,) * 3, (0.5,) * 3)


def class_rows(label):
    return (digits().train.labels == label).nonzero().flatten()


# noise

@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_noise_gives_exactly_its_share_of_the_images_another_group(share):
    train = with_groups(f"--group_noise {share}").train
    differs = train.groups != digits().train.groups
    assert differs.sum() == round(share * len(train)) and train.groups.min() >= 0
    assert train.labels.equal(digits().train.labels) and train.images.equal(digits().train.images)


def test_noise_draws_every_other_group_equally_often_in_every_class():
    train = made_up([0, 1] * 15_000, [0] * 30_000, num_groups=4)
    noisy = noise.add_noise(train, 0.6, *KEY)
    assert torch.allclose(noisy.counts() / 15_000, torch.tensor([0.4, 0.2, 0.2, 0.2])[:, None], atol=0.02)


def test_noise_depends_on_the_seed_alone():
    draws = [with_groups(f"--group_noise 0.3 --seed {seed}").train.groups for seed in (5, 5, 6)]
    assert draws[0].equal(draws[1]) and not draws[0].equal(draws[2])


# partial labels

@pytest.mark.parametrize("share", [0.2, 0.5])
def test_omitted_images_are_unknown_and_the_known_share_keeps_its_labels(share):
    train = with_groups(f"--known_groups {share} --unknown_groups omit").train
    known = train.groups != UNKNOWN
    assert known.sum() == round(share * len(train)) and train.groups[known].equal(digits().train.groups[known])
    other = with_groups(f"--known_groups {share} --unknown_groups omit --seed 1").train
    assert not (other.groups != UNKNOWN).equal(known)


def test_assigned_images_get_the_group_of_the_nearest_center_of_known_images_in_their_class():
    known = with_groups("--known_groups 0.2 --unknown_groups omit").train.groups
    assigned = with_groups("--known_groups 0.2").train.groups
    for label in range(10):
        rows = class_rows(label)
        points = pixels(rows).astype(np.float64)
        present = [group for group in range(10) if (known[rows] == group).any()]
        centers = [points[(known[rows] == group).numpy()].mean(0) for group in present]
        for row, point in zip(rows.tolist(), points, strict=True):
            nearest = present[int(np.argmin([np.square(point - center).sum() for center in centers]))]
            assert assigned[row] == (known[row] if known[row] != UNKNOWN else nearest)


def test_all_known_is_no_change():
    assert with_groups("--known_groups 1") is digits() and with_groups("") is digits()


def test_a_class_without_known_images_stays_unknown():
    train = made_up([0, 0, 1, 1], [0, UNKNOWN, UNKNOWN, UNKNOWN])
    groups = partial.assign_to_nearest_center(train, lambda rows: np.zeros((len(rows), 1)))
    assert groups.tolist() == [0, 0, UNKNOWN, UNKNOWN]


LABELS, GROUPS = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 0, 2, UNKNOWN, 1, UNKNOWN])


@pytest.mark.parametrize("align", ["fairdd", "barycenter"])
def test_an_image_of_unknown_group_is_in_no_target(align):
    targets = ALIGNMENTS[align](LABELS, GROUPS)
    assert targets.images.tolist() == [0, 1, 2, 4]
    values = torch.tensor([1.0, 3.0, 8.0, 100.0, 5.0, 100.0])[:, None]
    expected = {"fairdd": ([0, 0, 1], [2.0, 8.0, 5.0]), "barycenter": ([0, 1], [5.0, 5.0])}[align]
    assert (targets.classes.tolist(), segment_sum(values, targets).flatten().tolist()) == expected


def test_vanilla_targets_hold_images_of_unknown_group_too():
    assert class_mean_targets(LABELS, GROUPS).images.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("groups", [[0, 1, UNKNOWN, UNKNOWN], [UNKNOWN] * 4])
@pytest.mark.parametrize("loss", ["embedding", "gradient", "features"])
def test_a_class_without_a_target_does_not_move(loss, groups):
    labels = torch.tensor([0, 0, 1, 1])
    targets = per_group_targets(labels, torch.tensor(groups))
    net, real, syn = get_network("ConvNetD1W32", 3, 2, (8, 8)), torch.randn(4, 3, 8, 8), torch.randn(2, 3, 8, 8)
    if loss == "gradient":
        losses, gradients = gradient_loss(net, real, list(syn.split(1)), targets)
        gradient = torch.cat(gradients)
    else:
        args = (net, real, syn, torch.arange(2), targets)
        losses, gradient = embedding_loss(*args) if loss == "embedding" else feature_loss(*args, labels)
    assert losses.isfinite().all() and gradient.isfinite().all()
    if loss != "features":                      # there a class's images also are wrong answers for the other class
        assert losses[1] == 0 and not gradient[1].any()
        assert gradient[0].any() == (groups[0] != UNKNOWN)


def test_counts_leave_unknown_groups_out_and_class_sizes_do_not():
    train = made_up([0, 0, 1, 1], [0, UNKNOWN, 2, 2])
    assert train.counts().tolist() == [[1, 0], [0, 0], [0, 2]] and train.class_sizes().tolist() == [2, 2]


# clusters

def test_kmeans_clusters_are_those_of_sklearn_in_every_class():
    train = with_groups("--groups kmeans:3 --seed 4").train
    for label in range(10):
        seed = key_to_seed(4, "groups", "kmeans", label) % 2**32
        expected = KMeans(3, n_init=pseudo.STARTS, random_state=seed).fit_predict(pixels(class_rows(label)))
        assert train.groups[class_rows(label)].tolist() == expected.tolist()
    assert train.group_names == ("cluster 0", "cluster 1", "cluster 2")


def test_pixel_features_of_large_images_are_means_over_blocks():
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    train = replace(made_up([0] * 5, [0] * 5), images=images)
    blocks = images.double().view(5, 3, 16, 2, 16, 2).mean((3, 5)).flatten(1) / 255
    assert torch.allclose(features.pixel_features(train, torch.tensor([4, 1])).double(), blocks[[4, 1]], atol=1e-6)


def feature_function(name):
    """Return the function from rows of the digits to these features, and the network that its key makes."""
    method, args = main_DM.parse([*SMALL, "--groups", "kmeans:2", "--group_features", name])
    context = Context(None, args, method, digits().train, digits().test, get_network, [])
    net = context.init_network(args.model, *KEY)
    return features.feature_extractor(digits().train, args, context.init_network, *KEY), net


def test_random_features_are_the_embeddings_of_a_network_of_the_key():
    extract, net = feature_function("random")
    rows = torch.tensor([3, 1000, 7])
    with torch.no_grad():
        expected = net.embed(digits().train.batch(rows)).numpy()
    assert np.allclose(extract(rows), expected, atol=1e-5)


def test_trained_features_are_embeddings_of_the_same_network_after_it_has_learned_the_classes(monkeypatch):
    monkeypatch.setattr(features, "TRAIN_STEPS", 100)
    extract, net = feature_function("trained")
    features.train_briefly(net, digits().train, 0.01, 256, *KEY)
    rows = torch.tensor([3, 1000, 7])
    with torch.no_grad():
        assert np.allclose(extract(rows), net.embed(digits().train.batch(rows)).numpy(), atol=1e-5)
    assert (predict(net, digits().test) == digits().test.labels).double().mean() > 0.3       # color misleads it


def test_dbscan_finds_dense_clusters_and_makes_one_group_of_the_rest():
    generator = np.random.default_rng(0)
    dense = [generator.normal(center, 0.01, (20, 2)) for center in (0, 5)]
    scattered = np.array([[20, 0], [0, 40], [-60, 0], [0, -80]])
    groups = batch_clusters.dbscan(np.concatenate([*dense, scattered])).tolist()
    assert [len(set(groups[rows])) for rows in (slice(20), slice(20, 40), slice(40, 44))] == [1, 1, 1]
    assert len(set(groups)) == 3 and min(groups) == 0


def test_batch_groups_are_those_of_sklearn_and_depend_on_the_batch_alone():
    train = with_groups("--groups dbscan --batch_real 60").train
    rows = torch.cat([class_rows(label)[10:70] for label in (2, 6)])
    groups = RealBatch(train, rows, None).groups
    for chunk in (slice(60), slice(60, 120)):
        points = pixels(rows[chunk])
        distances = np.sort(np.sqrt(np.square(points[:, None].astype(float) - points).sum(2)), axis=1)
        fourth = np.sort(distances[:, 4])
        line = fourth[0] + (fourth[-1] - fourth[0]) * np.arange(60) / 59
        expected = DBSCAN(eps=fourth[np.argmax(line - fourth)], min_samples=5).fit_predict(points)
        assert adjusted_rand_score(expected, groups[chunk].numpy()) == 1 and len(set(expected)) > 1
    shuffled = torch.randperm(120)
    assert adjusted_rand_score(RealBatch(train, rows[shuffled], None).groups.numpy() * 2 + (shuffled >= 60).numpy(),
                               groups[shuffled].numpy() * 2 + (shuffled >= 60).numpy()) == 1


def test_every_method_uses_the_groups_of_the_batch(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(batch_clusters, "dbscan", lambda points: seen.append(len(points)) or torch.arange(len(points)))
    main_DM.main([*SMALL, "--FairDD", "--groups", "dbscan", "--save_path", str(tmp_path / "DM")])
    assert seen == [20] * 10 * 3        # a sample, two iterations
    main_DC.main([*SMALL, "--FairDD", "--groups", "dbscan", "--save_path", str(tmp_path / "DC"), "--outer_loop", "1"])
    assert seen == [20] * 10 * 6


# files

def write_csv(path, header, rows):
    path.write_text("\n".join([header, *(f"{key},{group}" for key, group in rows)]) + "\n")
    return str(path)


def test_groups_of_a_file_are_found_by_index_in_any_order(tmp_path):
    count = len(digits().train)
    rows = [(k, "xyz"[k % 3]) for k in range(count + 5)][::-1]
    train = with_groups(f"--groups {write_csv(tmp_path / 'groups.csv', 'index,pseudo-group', rows)}").train
    assert train.groups.tolist() == [k % 3 for k in range(count)] and train.group_names == ("x", "y", "z")


def test_groups_of_a_file_are_found_by_path(tmp_path):
    data = replace(digits(), train=made_up([0, 1, 0], [0, 1, 2]), train_paths=("a/1.png", "b/2.png", "a/3.png"))
    path = write_csv(tmp_path / "groups.csv", "path,cluster",
                     [("a/3.png", "old"), ("c.png", "z"), ("b/2.png", "new"), ("a/1.png", "new")])
    train = file.read_groups(path, data)
    assert (train.groups.tolist(), train.group_names) == ([0, 0, 1], ("new", "old"))


# agreement

def test_agreement_is_the_mean_adjusted_rand_index_of_classes_and_the_share_of_majority_groups():
    generator = np.random.default_rng(0)
    used, true, labels = (torch.from_numpy(generator.integers(0, high, 500)) for high in (4, 3, 2))
    used = torch.where(torch.from_numpy(generator.random(500) < 0.6), true, used)
    scores = [adjusted_rand_score(true[labels == label], used[labels == label]) for label in (0, 1)]
    assert agreement.adjusted_rand_index(used, true, labels) == pytest.approx(np.mean(scores))
    hits = sum(max(((labels == c) & (used == u) & (true == t)).sum().item() for t in range(3))
               for c in range(2) for u in range(4))
    assert agreement.purity(used, true, labels) == pytest.approx(hits / 500)


def test_the_majority_share_is_that_of_the_mean_of_the_groups_means():
    generator = torch.Generator().manual_seed(0)
    labels, used = (torch.randint(number, (600,), generator=generator) for number in (2, 4))
    others = torch.randint(3, (600,), generator=generator)
    true = torch.where(torch.rand(600, generator=generator) < 0.6, labels, others)
    one_hot = torch.nn.functional.one_hot(true, 3).double()           # its mean is the share of each group
    means = segment_sum(one_hot, targets := per_group_targets(labels, used))
    expected = [means[targets.classes == label].mean(0)[label] for label in range(2)]
    assert agreement.majority_share(used, true, labels) == pytest.approx(np.mean(expected))
    assert agreement.majority_share(true, true, labels) == pytest.approx(1 / 3)


def test_agreement_leaves_images_of_unknown_true_group_out():
    true, used = made_up([0, 0, 0, 1, 1, 1], [0, 1, UNKNOWN, 0, 2, UNKNOWN]), [0, 1, 2, 0, UNKNOWN, 2]
    sentence = agreement.describe_agreement(made_up([0, 0, 0, 1, 1, 1], used), true)
    known = made_up([0, 0, 1], [0, 1, 0])
    assert sentence == agreement.describe_agreement(known, known) + "; 1 of 6 images are in no group"


def test_the_log_tells_the_agreement_with_true_groups(tmp_path):
    main_DM.main([*SMALL, "--groups", "kmeans:3", "--save_path", str(tmp_path)])
    used, true = with_groups("--groups kmeans:3").train, digits().train
    args = used.groups, true.groups, true.labels
    expected = f"adjusted Rand index {agreement.adjusted_rand_index(*args):.3f}, purity {agreement.purity(*args):.3f}"
    assert expected in (tmp_path / "log.txt").read_text()


def test_a_report_pools_runs_with_labels_and_older_runs_and_no_others():
    flags = [main_DM.parse(line.split())[1].as_dict() for line in ("", "--group_noise 0.1", "--groups kmeans:3")]
    older = {name: value for name, value in flags[0].items() if "group" not in name or name == "group_balance"}
    assert "groups" not in older and pooling_key(older) == pooling_key(flags[0])
    assert pooling_key(older) not in map(pooling_key, flags[1:])


# the test set and other alignments do not change

@pytest.mark.parametrize("line", ["--groups kmeans:2", "--groups dbscan", "--group_noise 0.9",
                                  "--known_groups 0.3 --unknown_groups omit"])
def test_results_are_by_the_true_groups_of_the_test_set(tmp_path, line):
    assert with_groups(line).test is digits().test
    main_DM.main([*SMALL, "--FairDD", *line.split(), "--save_path", str(tmp_path)])
    results, projection = read_json(tmp_path / "results.json"), read_json(tmp_path / "projection.json")
    assert results["group_names"] == list(digits().test.group_names) and len(results["table"]) == 10
    assert torch.load(tmp_path / "synthetic.pt")["group_names"] == list(digits().test.group_names)
    assert read_json(tmp_path / "dataset.json")["train"] == digits().train.counts().tolist()
    assert min(projection["real"]["groups"]) >= 0 and max(projection["real"]["groups"]) == 9


def test_vanilla_matching_does_not_depend_on_groups(tmp_path):
    lines, saved = ("", "--known_groups 0.3 --unknown_groups omit", "--groups dbscan"), []
    for number, line in enumerate(lines):
        folder = tmp_path / str(number)
        main_DM.main([*SMALL, *line.split(), "--save_path", str(folder)])
        saved.append(torch.load(folder / "synthetic.pt")["data"][0][0])
    assert saved[0].equal(saved[1]) and saved[0].equal(saved[2])


# refusals

@pytest.mark.parametrize(("line", "message"), [
    ("--group_noise 1", "'1' is not a number from 0 to below 1"),
    ("--group_noise -0.1", "'-0.1' is not a number from 0 to below 1"),
    ("--known_groups 0", "'0' is not a number above 0, up to 1"),
    ("--known_groups 1.1", "'1.1' is not a number above 0, up to 1"),
    ("--groups kmeans:1", "'1' is not an integer of at least 2"),
    ("--groups kmeans", "'' is not an integer of at least 2"),
    ("--groups colors", "'colors' is not labels, kmeans:K, dbscan or a file that ends with .csv"),
    ("--groups nowhere.csv", "--groups nowhere.csv cannot be read: No such file"),
    ("--group_features random", "--group_features is for clusters"),
    ("--known_groups 0.5 --unknown_groups omit --group_features random", "--group_features is for clusters"),
    ("--unknown_groups omit", "give --known_groups below 1"),
    ("--groups kmeans:3 --known_groups 0.5", "--known_groups has no meaning"),
    ("--groups dbscan --group_noise 0.1", "--group_noise has no meaning"),
    ("--groups dbscan --group_balance", "--group_balance (given or by default) needs them before"),
    ("--groups dbscan --init balanced", "--init balanced (given"),
    ("--groups dbscan --init kmeans --FairDD", "--cluster cell (given"),
    ("--groups dbscan --batch_real 4", "is left with one group"),
    ("--groups kmeans:2000", "asks for more clusters than class 'zero' has"),
    ("--known_groups 0.01 --unknown_groups omit", "group(s) of training images, but needs two"),
    ("--known_groups 0.02 --unknown_groups omit --init balanced --ipc 20 --seed 1", "is left with"),
    ("--known_groups 0.3 --unknown_groups omit --init balanced --ipc 60", "--init balanced takes 60 images of known"),
])
def test_bad_flags_are_refused_before_the_first_iteration(tmp_path, capsys, line, message):
    arguments = [*SMALL, "--FairDD", "--save_path", str(tmp_path / "run"), *line.split()]
    assert message in refusal(capsys, main_DM.main, arguments)
    assert not (tmp_path / "run" / "flags.json").exists()


def test_idc_is_told_which_defaults_need_groups_before_the_batch(tmp_path, capsys):
    arguments = [*SMALL, "--method", "IDC", "--FairDD", "--groups", "dbscan", "--pixel_steps", "1", "--n_data", "20"]
    message = refusal(capsys, main_DC.main, [*arguments, "--save_path", str(tmp_path)])
    assert "--group_balance, --train_net balanced (given or by default)" in message


@pytest.mark.parametrize(("header", "rows", "message"), [
    ("index,group", [(k, k % 2) for k in range(1, 5000)], "lacks the group of 1 of"),
    ("index,group", [(k, k % 2 if k else "") for k in range(5000)], "lacks the group of 1 of"),
    ("index,group", [(k, 1) for k in range(5000)], "class 'zero' is left with 1 group"),
    ("index,group", [(k // 2, k % 2) for k in range(5000)], "gives several groups to 2500 images: 0, 1, 2"),
    ("path,group", [(f"{k}.png", k % 2) for k in range(5000)], "have no paths; the first column must be index"),
    ("image,group", [(k, k % 2) for k in range(5000)], "expected two columns, path or index first"),
    ("index", [], "expected two columns"),
])
def test_bad_group_files_are_refused_before_the_first_iteration(tmp_path, capsys, header, rows, message):
    path = write_csv(tmp_path / "groups.csv", header, rows)
    arguments = [*SMALL, "--FairDD", "--save_path", str(tmp_path / "run"), "--groups", path]
    assert message in refusal(capsys, main_DM.main, arguments)
    assert not (tmp_path / "run" / "flags.json").exists()


def test_a_run_is_not_continued_with_another_group_file(tmp_path, capsys):
    path = write_csv(tmp_path / "groups.csv", "index,group", [(k, k % 3) for k in range(2000)])
    arguments = [*SMALL, "--save_path", str(tmp_path / "run"), "--groups", path]
    main_DM.main(arguments)
    main_DM.main(arguments)
    write_csv(tmp_path / "groups.csv", "index,group", [(k, k % 2) for k in range(2000)])
    assert "have changed: the file of --groups" in refusal(capsys, main_DM.main, arguments).replace("\n", "")


def test_a_step_matches_the_groups_of_each_attribute(tmp_path):
    write_images(tmp_path, make_rows())
    write_table(tmp_path, [HEADER, *make_rows()])
    argv = [*SMALL, "--dataset", "Folder", "--data_path", str(tmp_path), "--target_attr", "age:20,40", "--FairDD",
            "--protected_attr", "gender,race", "--groups_of", "each", "--save_path", str(tmp_path / "run")]
    method, args = main_DM.parse(argv)
    data = load_data(args)
    context = Context(None, args, method, data.train, data.test, get_network, [])
    real = context.real_batch(None, 0, "experiment", 0, 0)
    targets = context.targets(real)
    genders, races = real.groups // 2, real.groups % 2
    for label in range(3):
        present = {("gender", gender) for gender in genders[real.labels == label].tolist()} \
            | {("race", race) for race in races[real.labels == label].tolist()}
        assert (targets.classes == label).sum() == len(present)
    main_DM.main(argv)
    results = read_json(tmp_path / "run" / "results.json")
    assert {"DEO_M", "DEO_M[gender]", "DEO_M[race]"} <= results.keys()


@pytest.mark.parametrize("line", ["--FairDD", "--FairDD --protected_attr gender", "--protected_attr gender,race",
                                  "--FairDD --protected_attr gender,race --groups kmeans:2"])
def test_each_attribute_is_refused_where_it_means_nothing(line):
    with pytest.raises(UserError, match="--groups_of each"):
        main_DM.parse([*SMALL, *line.split(), "--dataset", "UTKface", "--groups_of", "each"])


# groups that a user's table does not know

@pytest.fixture
def partly_labeled(tmp_path):
    """Return the flags of a folder of 60 images in which a third of the races are unknown."""
    rows = make_rows()
    write_images(tmp_path, rows)
    write_table(tmp_path, [HEADER, *([*row[:3], "?" if k % 3 == 0 else row[3]] for k, row in enumerate(rows))])
    return ["--dataset", "Folder", "--data_path", str(tmp_path), "--target_attr", "age:20,40", "--protected_attr",
            "race", "--unknown", "?", *SMALL]


def test_unknown_groups_of_a_table_are_omitted_or_assigned(partly_labeled):
    def groups_of(*flags):
        method, args = main_DM.parse([*partly_labeled, *flags])
        data = load_data(args)
        context = Context(None, args, method, data.train, data.test, get_network, [])
        return data, with_training_groups(data, args, context.init_network).train.groups

    data, omitted = groups_of("--unknown_groups", "omit")
    assert omitted.equal(data.train.groups) and 0 < (omitted == UNKNOWN).sum() <= 20
    data, assigned = groups_of("--unknown_groups", "assign")
    known = data.train.groups != UNKNOWN
    assert assigned.equal(partial.assign_to_nearest_center(
        data.train, lambda rows: data.train.images[rows].flatten(1).numpy() / np.float32(255)))
    assert assigned[known].equal(data.train.groups[known]) and (assigned != UNKNOWN).all()
    data, omitted = groups_of("--unknown_groups", "omit", "--group_noise", "0.5")
    known = data.train.groups != UNKNOWN
    assert (omitted != data.train.groups).sum() == round(0.5 * int(known.sum())) and omitted[~known].eq(UNKNOWN).all()
    data, _ = groups_of()
    assert (data.train.groups != UNKNOWN).all()         # by default such rows are left out


def test_a_run_on_a_partly_labeled_folder_is_evaluated_again_on_the_same_data(partly_labeled, tmp_path):
    folder = tmp_path / "run"
    main_DM.main([*partly_labeled, "--FairDD", "--unknown_groups", "omit", "--save_path", str(folder)])
    evaluate.main([str(folder), "--save_path", str(tmp_path / "again")])
    first, again = (read_json(path / "dataset.json") for path in (folder, tmp_path / "again"))
    assert first["digest"] == again["digest"] and first["train"] == again["train"]
    assert "unknown_groups" not in read_run(tmp_path / "again").command()


def test_unknown_groups_need_a_reason(capsys):
    message = refusal(capsys, main_DM.main, [*SMALL, "--unknown_groups", "omit"])
    assert "give --known_groups below 1, or --unknown" in message
