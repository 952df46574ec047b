"""Reading synthetic sets of other tools: what they really save is read, nothing is executed, errors give the reason."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from refusal import refusal
from torch.nn.functional import one_hot

from fairdd import evaluate, export
from fairdd.core.errors import UserError
from fairdd.core.rng import seeded
from fairdd.datasets import get_dataset
from fairdd.evaluation.training import TrainConfig, accumulate_gradients, train_with_schedule
from fairdd.matching.synset import LabeledImages, expand_grid
from fairdd.run.synset_files import load_pt
from fairdd.run.synset_io import match_scale, read_saved_sets, run_flags
from networks import get_network

IMAGES = torch.randn(20, 3, 16, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(10).repeat_interleave(2)


def save(path, content, **options):
    torch.save(content, path, **options)
    return path


def rename_numpy(path, new):
    """Copy a .pt file with numpy's module renamed to what another version of numpy writes; return the copy's path."""
    copy = path.with_name("renamed.pt")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as target:
        for name in source.namelist():
            content = source.read(name)
            for module in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
                content = content.replace(module, new)
            target.writestr(name, content)
    return copy


def read_error(path, *args, **kwargs):
    with pytest.raises(UserError) as error:
        read_saved_sets(path, *args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_files_of_dc_and_fairdd_with_numpy_accuracies_are_read(tmp_path, module):
    accuracies = [np.float64(0.5), round(np.float64(34.5678), 2), np.float32(0.25), np.int64(3)]
    content = {"data": [[IMAGES, LABELS]], "accs_all_exps": {"ConvNet": accuracies}}
    path = rename_numpy(save(tmp_path / "res.pt", content), module)
    [syn] = read_saved_sets(path).sets
    assert torch.equal(syn.images, IMAGES) and torch.equal(syn.labels, LABELS)
    assert load_pt(path)["accs_all_exps"]["ConvNet"] == accuracies


def test_reading_leaves_torchs_list_of_safe_globals_as_it_was(tmp_path):
    torch.serialization.add_safe_globals([np.ndarray])          # as the user's own program may have done
    before = set(torch.serialization.get_safe_globals())
    assert np.dtype not in before and np.ndarray in before
    try:
        read_saved_sets(save(tmp_path / "set.pt", [IMAGES, LABELS]))
        assert set(torch.serialization.get_safe_globals()) == before
        read_error(save(tmp_path / "net.pt", torch.nn.Linear(1, 1)))
        assert set(torch.serialization.get_safe_globals()) == before
    finally:
        torch.serialization.clear_safe_globals()


class RunsCode:
    """A pickle of it runs a command when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("new_format", [True, False])
def test_code_in_a_file_is_not_executed(tmp_path, new_format):
    content = {"data": [[IMAGES, LABELS]], "accs_all_exps": RunsCode(tmp_path / "executed")}
    path = save(tmp_path / "res.pt", content, _use_new_zipfile_serialization=new_format)
    assert "mkdir" in read_error(path)
    assert not (tmp_path / "executed").exists()
    with pytest.raises(TypeError):      # torch.load would have executed it
        torch.load(path, weights_only=False)["accs_all_exps"]["x"]
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (torch.utils.data.TensorDataset(IMAGES, LABELS), "torch.utils.data.dataset.TensorDataset was not an allowed"),
        ([IMAGES.numpy(), LABELS.numpy()], "multiarray._reconstruct was not an allowed"),
    ],
)
def test_a_refused_file_is_reported_with_the_readers_reason(tmp_path, content, reason):
    message = read_error(save(tmp_path / "set.pt", content))
    assert reason in message and "weights_only" not in message and "safe_globals" not in message


def test_files_that_are_no_pt_files_are_refused(tmp_path):
    complete = save(tmp_path / "set.pt", [IMAGES, LABELS]).read_bytes()
    for name, content in (("cut.pt", complete[:-500]), ("empty.pt", b""), ("text.pt", b"no tensors\n" * 9)):
        (tmp_path / name).write_bytes(content)
        assert "cannot be read as a .pt file" in read_error(tmp_path / name)
    assert "does not exist" in read_error(Path(tmp_path / "nothing.pt"))


SOFT = torch.softmax(torch.randn(20, 10, generator=torch.Generator().manual_seed(1)), 1)
PIXELS = torch.rand(20, 3, 16, 16, generator=torch.Generator().manual_seed(2))
TINY = ["--dataset", "Colored_Digits", "--model", "ConvNetD1W32", "--num_eval", "1", "--epoch_eval_train", "1"]


@pytest.mark.parametrize("content", [{"images": IMAGES, "labels": LABELS}, {"data": IMAGES, "target": LABELS}])
def test_a_dict_that_names_images_and_labels_is_read(tmp_path, content):
    [syn] = read_saved_sets(save(tmp_path / "set.pt", content)).sets
    assert torch.equal(syn.images, IMAGES) and torch.equal(syn.labels, LABELS)


def test_images_and_labels_in_two_files_are_read(tmp_path):
    images, labels = save(tmp_path / "images_best.pt", IMAGES), save(tmp_path / "labels_best.pt", LABELS)
    [syn] = read_saved_sets(images, labels).sets
    assert torch.equal(syn.images, IMAGES) and torch.equal(syn.labels, LABELS)
    assert "--images FILE --labels_pt FILE" in read_error(images)
    assert "found torch.int64 (20,) and torch.float32 (20, 3, 16, 16)" in read_error(labels, images)


@pytest.mark.parametrize(
    "labels", [LABELS.int(), LABELS.byte(), LABELS.float(), LABELS.half(), LABELS.double().requires_grad_(),
               LABELS[:, None], one_hot(LABELS), one_hot(LABELS).float()]
)
def test_hard_labels_are_read_in_every_form(tmp_path, labels):
    [syn] = read_saved_sets(save(tmp_path / "set.pt", [IMAGES, labels])).sets
    assert syn.labels.dtype == torch.int64 and torch.equal(syn.labels, LABELS)


@pytest.mark.parametrize(
    "pair", [[IMAGES, LABELS.cfloat()], [IMAGES.cfloat(), LABELS], [IMAGES.to_sparse(), LABELS],
             [IMAGES, LABELS.to_sparse()], [IMAGES, torch.tensor(1)], [IMAGES, LABELS[None, None]], [LABELS, IMAGES]]
)
def test_tensors_of_other_kinds_are_refused(tmp_path, pair):
    message = read_error(save(tmp_path / "set.pt", pair))
    assert "expected images (M, C, H, W)" in message or "sparse" in message     # torch warns of sparse tensors first


def test_two_classes_can_be_given_as_booleans(tmp_path):
    [syn] = read_saved_sets(save(tmp_path / "set.pt", [IMAGES, LABELS > 4])).sets
    assert torch.equal(syn.labels, (LABELS > 4).long())


def test_other_keys_of_a_dict_are_ignored(tmp_path):
    content = {"data": [[IMAGES, LABELS]], "iterations": 5, "group_balance": None, "net": {"lr": torch.ones(2)}}
    assert torch.equal(read_saved_sets(save(tmp_path / "set.pt", content)).sets[0].images, IMAGES)


def test_soft_labels_stay_distributions_and_follow_their_grid(tmp_path):
    path = save(tmp_path / "set.pt", [IMAGES, SOFT.double()])
    assert torch.equal(read_saved_sets(path).sets[0].labels, SOFT)
    assert torch.equal(read_saved_sets(path, factor=2).sets[0].labels, SOFT.repeat_interleave(4, 0))


@pytest.mark.parametrize(
    "labels", [SOFT * 2, SOFT * 2 - 0.1, torch.log(SOFT), SOFT * torch.nan, LABELS + 0.5, LABELS / 0, SOFT[:19]]
)
def test_labels_that_are_neither_classes_nor_distributions_are_refused(tmp_path, labels):
    message = read_error(save(tmp_path / "set.pt", [IMAGES, labels]))
    assert "distributions (M, classes) whose rows sum to 1" in message and str(tuple(labels.shape)) in message
    assert ("torch.softmax(labels, 1)" in message) == (labels.ndim == 2)


def trained_weights(labels):
    with seeded("weights"):
        net = get_network("ConvNetD1W32", 3, 10, (16, 16))
    generator = torch.Generator().manual_seed(0)
    train_with_schedule(net, LabeledImages(IMAGES, labels), TrainConfig(3, 0.1, 8), generator)
    return torch.cat([weight.detach().flatten() for weight in net.parameters()])


def test_training_on_soft_labels_uses_their_cross_entropy():
    hard, soft = trained_weights(LABELS), trained_weights(SOFT)
    assert torch.allclose(trained_weights(one_hot(LABELS).float()), hard, atol=1e-6)
    assert (soft - hard).abs().max() > 1e-3
    net = get_network("ConvNetD1W32", 3, 10, (16, 16))
    expected = torch.autograd.grad(-(SOFT * net(IMAGES).log_softmax(1)).sum(1).mean(), list(net.parameters()))
    accumulate_gradients(net, IMAGES, SOFT)
    for weight, gradient in zip(net.parameters(), expected, strict=True):
        assert torch.allclose(weight.grad, gradient, atol=1e-6)


def test_a_factor_expands_grids_unless_the_file_states_another(tmp_path):
    path = save(tmp_path / "data.pt", [PIXELS, LABELS])
    [syn] = read_saved_sets(path, factor=2).sets
    assert torch.equal(syn.images, expand_grid(PIXELS, 2)) and torch.equal(syn.labels, LABELS.repeat_interleave(4))
    assert "a factor that divides" in read_error(path, factor=3)
    stated = save(tmp_path / "run.pt", {"data": [[PIXELS, LABELS]], "factor": 2})
    assert torch.equal(read_saved_sets(stated).sets[0].images, syn.images)
    assert torch.equal(read_saved_sets(stated, factor=2).sets[0].images, syn.images)
    assert "--factor 1: " in read_error(stated, factor=1) and "states a factor of 2" in read_error(stated, factor=4)


def on_scale(path, **options):
    """Return the images and the test images that the networks get, and the notes."""
    saved = read_saved_sets(path, **options)
    matched, test = match_scale(saved, get_dataset("Colored_Digits").test)
    return matched.sets[0].images, test.batch(torch.arange(5)), " ".join(saved.notes)


def test_pixels_in_unit_range_are_recognized_and_normalized_like_the_data_set(tmp_path):
    test = get_dataset("Colored_Digits").test
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (test.mean, test.std))
    path = save(tmp_path / "set.pt", [PIXELS, LABELS])
    for options in ({}, {"scale": "unit"}):
        images, test_images, notes = on_scale(path, **options)
        assert torch.allclose(images, (PIXELS - mean) / std)
        assert torch.equal(test_images, test.batch(torch.arange(5)))
        assert ("are taken as pixels" in notes and "warning: " in notes) == (not options)
    images, _, notes = on_scale(path, scale="normalized", factor=1)
    assert torch.equal(images, PIXELS) and notes == ""


def test_normalized_images_are_recognized_and_the_assumption_is_noted(tmp_path):
    path = save(tmp_path / "set.pt", [IMAGES, LABELS])
    images, test_images, notes = on_scale(path)
    assert torch.equal(images, IMAGES) and "taken as normalized" in notes and "no factor" in notes
    assert torch.equal(test_images, get_dataset("Colored_Digits").test.batch(torch.arange(5)))


def test_imagenet_scale_normalizes_the_test_images_with_imagenets_mean_and_std(tmp_path):
    test = get_dataset("Colored_Digits").test
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    images, test_images, _ = on_scale(save(tmp_path / "set.pt", [IMAGES, LABELS]), scale="imagenet")
    assert torch.equal(images, IMAGES)
    assert torch.allclose(test_images, (test.images[:5].float() / 255 - mean) / std, atol=1e-6)
    assert "each of 1 channels" in read_error(save(tmp_path / "gray.pt", [IMAGES[:, :1], LABELS]), scale="imagenet")


def test_a_scale_that_cannot_be_told_is_asked_for_and_one_that_is_stated_cannot_be_changed(tmp_path):
    bright = save(tmp_path / "bytes.pt", [255 * PIXELS, LABELS])
    assert "--scale unit|normalized|imagenet" in read_error(bright)
    assert torch.equal(read_saved_sets(bright, scale="normalized").sets[0].images, 255 * PIXELS)
    content = {"data": [[PIXELS, LABELS]], "mean": [0.5] * 3, "std": [0.5] * 3}
    stated = save(tmp_path / "run.pt", content)
    assert "states its mean and std" in read_error(stated, scale="unit")
    saved = read_saved_sets(stated, scale="normalized")
    assert saved.mean == saved.std == (0.5, 0.5, 0.5) and not saved.is_unit


@pytest.fixture
def run(tmp_path):
    """Write the folder of a run whose pixels lie in [0, 1], so that pictures lose only the rounding."""
    folder = tmp_path / "digits"
    folder.mkdir()
    test = get_dataset("Colored_Digits").test
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (test.mean, test.std))
    save(folder / "synthetic.pt", {"data": [[(PIXELS - mean) / std, LABELS]], "factor": 2, "mean": list(test.mean),
                                   "std": list(test.std), "class_names": list(test.class_names)})
    flags = dict(dataset="Colored_Digits", model="MLP", method="DM", align="fairdd", Iteration=3, seed=4,
                 eval_mode="SS", init="real", ipc=2, factor=2, num_eval=2, epoch_eval_train=7, lr_net=0.01,
                 batch_train=256, dsa_strategy="none", eval_overrides={}, data_seed=30)
    (folder / "flags.json").write_text(json.dumps({"flags": flags, "entry": "main_DM.py", "given": [], "versions": {}}))
    return folder


@pytest.mark.parametrize(("form", "tolerance"), [("folder", 0.51 / 255), ("npz", 1e-6)])
def test_an_export_can_be_read_back_with_its_scale_and_names(run, tmp_path, form, tolerance):
    out = tmp_path / ("set.npz" if form == "npz" else "pictures")
    export.main([str(run), str(out), "--format", form])
    original, exported = read_saved_sets(run), read_saved_sets(out)
    std = torch.tensor(original.std).view(-1, 1, 1)
    assert len(exported.sets[0].labels) == 80 and torch.equal(exported.sets[0].labels, original.sets[0].labels)
    assert ((exported.sets[0].images - original.sets[0].images) * std).abs().max() < tolerance
    assert exported.class_names == original.class_names and exported.notes == ()
    assert exported.mean == pytest.approx(original.mean) and exported.std == pytest.approx(original.std)
    assert "states a factor of 1" in read_error(out, factor=2)


def test_an_exported_folder_is_evaluated_with_the_flags_of_its_run(run, tmp_path):
    export.main([str(run), str(tmp_path / "pictures"), "--format", "folder"])
    assert run_flags(tmp_path / "pictures") == run_flags(run)
    evaluate.main([str(tmp_path / "pictures"), "--num_eval", "1", "--epoch_eval_train", "1"])
    [out] = tmp_path.glob("pictures_evaluated*")        # not in the folder: ImageFolder would take it for a class
    flags = json.loads((out / "flags.json").read_text())["flags"]
    assert flags["model"] == ["MLP"] and flags["seed"] == 4 and flags["trained_on"] == "pictures"
    assert "accuracy" in json.loads((out / "results.json").read_text())


def test_damaged_flags_are_refused(run, tmp_path):
    export.main([str(run), str(tmp_path / "pictures"), "--format", "folder"])
    for path in (run / "flags.json", tmp_path / "pictures" / "info.json"):
        for content in ("{", "[]", '{"flags": 3}'):
            path.write_text(content)
            if content != "[]" or path.name == "flags.json":
                with pytest.raises(UserError, match=f"{path.name} is damaged"):
                    run_flags(path.parent)


def test_an_incomplete_export_is_refused(run, tmp_path):
    export.main([str(run), str(tmp_path / "pictures"), "--format", "folder"])
    next((tmp_path / "pictures").glob("3_*/*.png")).unlink()
    assert "is not a complete export" in read_error(tmp_path / "pictures")
    np.savez(tmp_path / "other.npz", images=np.zeros((2, 4, 4, 3)))
    assert "is not a complete export" in read_error(tmp_path / "other.npz")
    (tmp_path / "text.npz").write_text("no arrays")
    assert "is not a complete export" in read_error(tmp_path / "text.npz")


def test_soft_labels_are_exported_to_npz_and_not_to_folders(run, tmp_path, capsys):
    content = torch.load(run / "synthetic.pt")
    save(run / "synthetic.pt", content | {"data": [[content["data"][0][0], SOFT]]})
    export.main([str(run), str(tmp_path / "set.npz"), "--format", "npz"])
    assert torch.equal(read_saved_sets(tmp_path / "set.npz").sets[0].labels, SOFT.repeat_interleave(4, 0))
    message = refusal(capsys, export.main, [str(run), str(tmp_path / "pictures"), "--format", "folder"])
    assert "use --format npz or pt" in message and not (tmp_path / "pictures").exists()


def test_the_flags_for_files_of_other_tools_reach_the_reader(tmp_path, capsys):
    images, labels = save(tmp_path / "images_best.pt", PIXELS), save(tmp_path / "labels_best.pt", SOFT)
    command = ["--images", str(images), "--labels_pt", str(labels), "--factor", "2", "--scale", "unit", *TINY]
    evaluate.main(command)
    [out] = tmp_path.glob("images_best_evaluated*")
    flags = json.loads((out / "flags.json").read_text())["flags"]
    assert flags["source"] == str(images) and flags["factor"] == 2 and flags["scale"] == "unit"
    expected, _ = match_scale(read_saved_sets(images, labels, factor=2), get_dataset("Colored_Digits").test)
    assert flags["images"] == evaluate.digest({0: expected.sets[0]})
    assert "states no factor" not in capsys.readouterr().out
    evaluate.main([str(images), "--labels_pt", str(labels), *TINY, "--out", str(tmp_path / "again")])
    notes = capsys.readouterr().out
    assert "states no factor" in notes and "are taken as pixels" in notes


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["a.pt", "--images", "b.pt", *TINY], "both a.pt and --images b.pt are given"),
        (["--data", "real", "--scale", "unit", *TINY], "--scale is about a synthetic set"),
        (["--data", "real", "--factor", "2", *TINY], "--factor is about a synthetic set"),
        (["--data", "real", "--labels_pt", "b.pt", *TINY], "--labels_pt is about a synthetic set"),
        (["SET", "--labels_pt", "b.pt", *TINY], "b.pt does not exist"),
        (["SET", "--scale", "bytes", *TINY], "invalid choice: 'bytes'"),
        (["SET", "--model", "ConvNet"], "--dataset is needed"),
        (["SOFT", *TINY], "expected distributions over 10 classes"),
    ],
)
def test_flags_that_do_not_fit_are_refused(tmp_path, capsys, flags, message):
    paths = {"SET": save(tmp_path / "set.pt", [IMAGES, LABELS]), "SOFT": save(tmp_path / "soft.pt", [IMAGES, SOFT[:, :5]
                                                                              / SOFT[:, :5].sum(1, keepdim=True)])}
    assert message in refusal(capsys, evaluate.main, [str(paths.get(flag, flag)) for flag in flags])
