"""Whatever a user's flags and files hold, the answer is a data set, a run, or one clear sentence. Never a traceback.

FUZZ_EXAMPLES sets how many examples each test tries (default 20).
"""

import io
import itertools
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import main_DC
import main_DM
import networks
from fairdd.core.errors import UserError
from fairdd.datasets import DATASETS, get_dataset
from fairdd.flags import parse
from fairdd.matching.augment import OPERATIONS
from fairdd.run import checkpoint

settings.register_profile("ours", max_examples=int(os.environ.get("FUZZ_EXAMPLES", 20)), deadline=None,
                          suppress_health_check=list(HealthCheck))
settings.load_profile("ours")

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
ODD_NUMBERS = st.sampled_from(["", "1e400", "0x10", "½", "1_0"])
NUMBERS = st.one_of(st.integers(-3, 300).map(str), st.floats().map(str), ODD_NUMBERS)
VALUES = {
    "--dataset": st.sampled_from([*DATASETS, "MNIST"]),
    "--model": st.one_of(st.sampled_from([*networks.NETWORKS]), WORDS),
    "--init": st.sampled_from(["real", "balanced", "noise", "other"]),
    "--align": st.sampled_from(["vanilla", "fairdd", "other"]),
    "--dsa_strategy": st.one_of(st.lists(st.sampled_from([*OPERATIONS, "blur"]), max_size=3).map("_".join), WORDS),
    "--dis_metric": st.sampled_from(["ours", "mse", "cos", "l1"]), "--eval_mode": st.sampled_from([*"SMBWDAPNX", "SS"]),
    "--device": st.sampled_from(["cpu", "cuda", "cuda:7", "meta", "tpu", "auto"]),
    "--target_attr": WORDS, "--protected_attr": WORDS,
    **dict.fromkeys(["--ipc", "--Iteration", "--num_exp", "--num_eval", "--epoch_eval_train", "--lr_img", "--lr_net",
                     "--batch_real", "--batch_train", "--eval_every", "--seed", "--data_seed", "--skew", "--im_size",
                     "--save_every"], NUMBERS),
}
FLAG = st.sampled_from([*VALUES]).flatmap(lambda name: VALUES[name].map(lambda value: [name, value]))
BARE = st.sampled_from(["--FairDD", "--restart", "--fairdd"])


@given(lines=st.lists(FLAG, max_size=5), bare=st.lists(BARE, max_size=2),
       method=st.sampled_from([["DM"], ["DC", "DSA"]]))
def test_any_flags_are_taken_or_refused_in_words(lines, bare, method):
    argv = [*itertools.chain(*lines), *bare]
    try:
        args = parse(method, networks.find_network, ["S", "SS", *networks.EVAL_POOLS], argv)
    except UserError as error:
        assert str(error).strip() and "Traceback" not in str(error)
    else:
        assert args.lr_img > 0 and args.ipc > 0 and args.Iteration >= 0
        assert args.align in ("vanilla", "fairdd", "barycenter")


ENTRIES = {"DM": main_DM.main, "DC": main_DC.main, "DSA": main_DC.main}
TINY = ["--num_eval", "1", "--epoch_eval_train", "1", "--ipc", "1", "--batch_real", "6", "--im_size", "8",
        "--Iteration", "1", "--model", "ConvNetD1W32", "--restart", "--batch_train", "7"]
RUNNING = {
    "--align": ["vanilla", "fairdd", "barycenter"], "--init": ["real", "balanced", "noise"], "--skew": ["0.3", "1"],
    "--dis_metric": ["ours", "mse", "cos", "l1", "other"], "--eval_mode": ["S", "SS", "other"],
    "--ipc": ["2", "3", "0", "500"], "--model": ["LeNet", "MLP", "ConvNetD1W32BN", "ConvNetD9"], "--num_exp": ["2"],
    "--dsa_strategy": ["none", "flip", "color_cutout", "crop_scale_rotate"], "--Iteration": ["0", "2"],
    "--lr_img": ["0.1", "1e30", "nan"], "--im_size": ["9", "12", "7"], "--eval_every": ["1"], "--save_every": ["1"],
    "--factor": ["2", "3"], "--warmup_epochs": ["1"],
    "--batch_real": ["1", "500"], "--device": ["cpu", "cuda:9"], "--target_attr": ["age"],
}
RUN_FLAG = st.sampled_from([*RUNNING]).flatmap(lambda name: st.sampled_from([(name, value) for value in RUNNING[name]]))


@given(flags=st.lists(RUN_FLAG, max_size=5, unique_by=lambda flag: flag[0]), fair=st.booleans(),
       method=st.sampled_from([*ENTRIES]))
def test_any_flags_run_to_the_end_or_are_refused_in_words(small, capsys, flags, fair, method):
    folder = small / "run"
    argv = [*TINY, "--method", method, *itertools.chain(*flags), *["--FairDD"] * fair, "--save_path", str(folder)]
    try:
        ENTRIES[method](argv)
    except SystemExit as stop:
        words = capsys.readouterr().err.strip().splitlines()
        assert stop.code == 2 and words[-1].startswith("error: ")
    else:
        assert (folder / "results.json").exists()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A folder with a small UTKFace, CelebA and BFFHQ."""
    root = tmp_path_factory.mktemp("small")
    for age in (5, 30, 60):
        for race in range(4):
            for number in range(3):
                picture(root / "UTKFace" / f"{age}_{number % 2}_{race}_{number}.jpg")
    rows = [f"{k:06}.jpg {' '.join('1' if k >> bit & 1 else '-1' for bit in range(3))}" for k in range(1, 25)]
    for row in rows:
        picture(root / "CelebA" / "img_align_celeba" / row.split()[0])
    header = f"{len(rows)}\nAttractive Male Young\n"
    (root / "CelebA" / "list_attr_celeba.txt").write_text(header + "\n".join(rows) + "\n")
    parts = [f"{row.split()[0]} {0 if k % 2 else 2}" for k, row in enumerate(rows)]
    (root / "CelebA" / "list_eval_partition.txt").write_text("\n".join(parts) + "\n")
    for place in ("0.5pct/align/0", "0.5pct/align/1", "0.5pct/conflict/0", "test"):
        for number in range(4):
            picture(root / "bffhq" / place / f"{number}_{number // 2}_{number % 2}.png")
    return root


@pytest.mark.parametrize("name", ["UTKface", "CelebA", "BFFHQ"])
def test_the_undamaged_sets_are_read(small, tmp_path, name):
    shutil.copytree(small, tmp_path / "copy")
    assert in_words(name, tmp_path / "copy") is not None


def picture(path):
    """A small image that says nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 6), (len(path.name), 20, 30)).save(path)


def damaged(content, data):
    """Bytes with a piece replaced, inserted or cut off."""
    place = data.draw(st.integers(0, len(content)))
    length = data.draw(st.sampled_from([0, 1, 4, 40]))
    new = data.draw(st.one_of(st.binary(max_size=6), st.sampled_from([b"\n", b",", b" 7 ", b"../", b"\xff\xd8", b""])))
    return content[:place] + new + (content[place + length:] if data.draw(st.booleans()) else b"")


def in_words(name, root, **how):
    """The data set, or None where it was refused; anything but a UserError is a failure."""
    try:
        return get_dataset(name, root, progress=False, im_size=8, **how)
    except UserError as error:
        assert str(error).strip()
        return None


def copy_of(small, folder, into):
    shutil.copytree(small / folder, Path(into) / folder)
    return Path(into)


@given(data=st.data())
def test_a_damaged_list_of_celeba_never_gives_a_traceback_or_a_wrong_label(small, data):
    name = data.draw(st.sampled_from(["list_attr_celeba.txt", "list_eval_partition.txt"]))
    with tempfile.TemporaryDirectory() as into:
        root = copy_of(small, "CelebA", into)
        path = root / "CelebA" / name
        path.write_bytes(damaged(path.read_bytes(), data))
        found = in_words("CelebA", root)
        if found is not None:
            assert found.train.counts().sum() + found.test.counts().sum() > 0


@given(data=st.data())
def test_damaged_mnist_files_are_read_or_refused(data):
    with tempfile.TemporaryDirectory() as into:
        raw = Path(into) / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for part in ("train", "t10k"):
            (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(np.zeros((40, 28, 28))))
            (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(40) % 10))
        path = data.draw(st.sampled_from(sorted(raw.iterdir())))
        path.write_bytes(damaged(path.read_bytes(), data))
        found = in_words("Colored_MNIST_foreground", into)
        assert found is None or len(found.train) == len(found.test) == 40 or "images" not in path.name


def idx(array):
    """Bytes of an idx file."""
    lengths = b"".join(length.to_bytes(4, "big") for length in array.shape)
    return bytes([0, 0, 8, array.ndim]) + lengths + array.astype(np.uint8).tobytes()


@given(name=WORDS, data=st.data())
def test_any_file_name_in_utkface_is_labeled_skipped_or_refused(small, name, data):
    parts = data.draw(st.lists(st.one_of(st.integers(-5, 200).map(str), WORDS), min_size=1, max_size=5))
    stem = "_".join([*parts, name]).replace("/", "")[:60]
    with tempfile.TemporaryDirectory() as into:
        root = copy_of(small, "UTKFace", into)
        before = in_words("UTKface", root)
        try:
            (root / "UTKFace" / f"{stem}.jpg").write_bytes((root / "UTKFace" / "5_0_0_0.jpg").read_bytes())
        except (OSError, UnicodeError):
            return                                      # no such file can exist here
        after = in_words("UTKface", root)
        assert before is not None and after is not None
        assert len(after.train) + len(after.test) - len(before.train) - len(before.test) in (0, 1)


@given(data=st.data(), skip=st.booleans())
def test_a_damaged_image_is_read_skipped_or_named(small, data, skip):
    with tempfile.TemporaryDirectory() as into:
        root = copy_of(small, "bffhq", into)
        path = data.draw(st.sampled_from(sorted((root / "bffhq").rglob("*.png"), key=str)))
        path.write_bytes(damaged(path.read_bytes(), data))
        try:
            found = get_dataset("BFFHQ", root, progress=False, im_size=8, skip_bad_images=skip)
            assert len(found.train) + len(found.test) in (15, 16)
        except UserError as error:
            assert not skip and path.name in str(error)


@given(data=st.data())
def test_a_damaged_state_is_whole_or_refused(data):
    state = {"iteration": 3, "images": torch.arange(12.0), "momentum": None, "sets": [], "seconds": 1.5}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(folder, state)
        path = Path(folder) / checkpoint.NAMES[0]
        path.write_bytes(damaged(path.read_bytes(), data))
        loaded = checkpoint.load(folder, lambda _: None)
        assert loaded is None or checkpoint.digest(loaded) == checkpoint.digest(state)


@given(mode=st.sampled_from(["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "I", "F", "YCbCr", "HSV", "LAB"]),
       size=st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_images_of_any_mode_and_size_become_rgb(small, mode, size):
    with tempfile.TemporaryDirectory() as into:
        root = copy_of(small, "bffhq", into)
        buffer = io.BytesIO()
        try:
            Image.new(mode, size).save(buffer, "TIFF")
        except (OSError, KeyError, ValueError):
            return                                      # no TIFF has this mode
        (root / "bffhq" / "test" / "9_0_1.png").write_bytes(buffer.getvalue())
        found = in_words("BFFHQ", root)
        assert found is None or np.array_equal(found.test.images.shape[1:], (3, 8, 8))
