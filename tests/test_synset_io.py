"""Reading synthetic sets of other tools: what they really save is read, nothing is executed, errors give the reason."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from fairdd.core.errors import UserError
from fairdd.run.synset_io import load_pt, read_saved_sets

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
    whole = save(tmp_path / "set.pt", [IMAGES, LABELS]).read_bytes()
    for name, content in (("cut.pt", whole[:-500]), ("empty.pt", b""), ("text.pt", b"no tensors\n" * 9)):
        (tmp_path / name).write_bytes(content)
        assert "cannot be read as a .pt file" in read_error(tmp_path / name)
    assert "does not exist" in read_error(Path(tmp_path / "nothing.pt"))
