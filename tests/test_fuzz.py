"""Whatever flags and files hold, the answer is a data set with the right labels, a run, or one clear message.

Every image of the small data sets has a color of its own, so that its label can be checked after loading.
FUZZ_EXAMPLES sets how many examples each test tries (default 20).
"""

import io
import itertools
import os
import re
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
from fairdd.datasets.colored import COLOR_NAMES, DIGITS, PALETTE
from fairdd.datasets.utkface import NAMES as UTKFACE_NAMES
from fairdd.flags import RUNTIME_FLAGS
from fairdd.matching.augment import OPERATIONS
from fairdd.run import checkpoint

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", 20))
settings.register_profile("fairdd", max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile("fairdd")
pytestmark = pytest.mark.timeout(15 * EXAMPLES)

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
ODD_NUMBERS = st.sampled_from(["", "1e400", "0x10", "½", "1_0"])
NUMBERS = st.one_of(st.integers(-3, 300).map(str), st.floats().map(str), ODD_NUMBERS)
VALUES = {
    "--dataset": st.sampled_from([*DATASETS, "MNIST"]),
    "--model": st.one_of(st.sampled_from([*networks.NETWORKS]), TEXT),
    "--init": st.sampled_from(["real", "balanced", "noise", "other"]),
    "--align": st.sampled_from(["vanilla", "fairdd", "other"]),
    "--dsa_strategy": st.one_of(st.lists(st.sampled_from([*OPERATIONS, "blur"]), max_size=3).map("_".join), TEXT),
    "--dis_metric": st.sampled_from(["ours", "mse", "cos", "l1"]), "--eval_mode": st.sampled_from([*"SMBWDAPNX", "SS"]),
    "--device": st.sampled_from(["cpu", "cuda", "cuda:7", "meta", "tpu", "auto", "mps", "xpu"]),
    "--target_attr": TEXT, "--protected_attr": TEXT, "--data_path": TEXT,
    **dict.fromkeys(["--ipc", "--Iteration", "--num_exp", "--num_eval", "--epoch_eval_train", "--lr_img", "--lr_net",
                     "--batch_real", "--batch_train", "--eval_every", "--seed", "--data_seed", "--skew", "--im_size",
                     "--save_every", "--factor"], NUMBERS),
}
FLAG = st.sampled_from([*VALUES]).flatmap(lambda name: VALUES[name].map(lambda value: [name, value]))
BARE = st.sampled_from(["--FairDD", "--restart", "--fairdd", "--group_balance"])
FLAGS = st.tuples(st.lists(FLAG, max_size=5), st.lists(BARE, max_size=2))
ENTRIES = {"DM": main_DM, "DC": main_DC, "DSA": main_DC}


def parsed(entry, flags):
    """Return the parsed flags, or None if they are refused; any other exception than UserError is a failure."""
    try:
        return entry.parse([*itertools.chain(*flags[0]), *flags[1]])[1]
    except UserError as error:
        assert str(error).strip() and "Traceback" not in str(error)
        return None


@given(flags=FLAGS, entry=st.sampled_from([main_DM, main_DC]))
def test_any_flags_are_accepted_or_refused_with_a_message(flags, entry):
    args = parsed(entry, flags)
    if args is not None:
        assert args.lr_img > 0 and args.ipc > 0 and args.Iteration >= 0
        assert args.align in ("vanilla", "fairdd", "barycenter")


@given(flags=FLAGS, more=FLAG, entry=st.sampled_from([main_DM, main_DC]))
def test_default_folders_are_equal_if_and_only_if_results_are(flags, more, entry):
    runs = [parsed(entry, flags), parsed(entry, ([*flags[0], more], flags[1]))]
    if None not in runs:
        different = {name for name in vars(runs[0]) if getattr(runs[0], name) != getattr(runs[1], name)}
        different -= RUNTIME_FLAGS - ({"data_path"} if runs[0].dataset == "Folder" else set())
        different -= {"non_default"}
        assert (runs[0].save_path == runs[1].save_path) == (not different), different


TINY = ["--num_eval", "1", "--epoch_eval_train", "1", "--ipc", "1", "--batch_real", "6", "--im_size", "8",
        "--Iteration", "1", "--model", "ConvNetD1W32", "--restart", "--batch_train", "7"]
RUNNING = {
    "--align": ["vanilla", "fairdd", "barycenter"], "--init": ["real", "balanced", "noise"],
    "--skew": ["0", "0.3", "1"], "--minorities": ["equal", "unequal", "odd"],
    "--train_without": ["red", "Red, pale yellow", "pink", ""],
    "--test_without": ["blue,red", "red,", ",".join(COLOR_NAMES[1:])],
    "--dis_metric": ["ours", "mse", "cos", "l1", "other"], "--eval_mode": ["S", "SS", "other"],
    "--ipc": ["2", "3", "0", "500"], "--model": ["LeNet", "MLP", "ConvNetD1W32BN", "ConvNetD9"], "--num_exp": ["2"],
    "--dsa_strategy": ["none", "flip", "color_cutout", "crop_scale_rotate"], "--Iteration": ["0", "2"],
    "--lr_img": ["0.1", "1e30", "nan"], "--im_size": ["9", "12", "7"], "--eval_every": ["1"], "--save_every": ["1"],
    "--factor": ["2", "3"], "--warmup_epochs": ["1"],
    "--batch_real": ["1", "500"], "--device": ["cpu", "cuda:9"], "--target_attr": ["age"],
}
RUN_FLAG = st.sampled_from([*RUNNING]).flatmap(lambda name: st.sampled_from([(name, value) for value in RUNNING[name]]))


@given(flags=st.lists(RUN_FLAG, max_size=5, unique_by=lambda flag: flag[0]), is_fair=st.booleans(),
       method=st.sampled_from([*ENTRIES]))
def test_any_flags_run_to_the_end_or_are_refused_with_a_message(small, capsys, flags, is_fair, method):
    folder = small / "run"
    argv = [*TINY, "--method", method, *itertools.chain(*flags), *["--FairDD"] * is_fair, "--save_path", str(folder)]
    try:
        ENTRIES[method].main(argv)
    except SystemExit as stop:
        lines = capsys.readouterr().err.strip().splitlines()
        assert stop.code == 2 and lines[-1].startswith("error: ")
    else:
        assert (folder / "results.json").exists()
        for images, labels in torch.load(folder / "synthetic.pt", weights_only=True)["data"]:
            assert images.isfinite().all() and (labels.bincount() == len(images) // 10).all()
    shutil.rmtree(folder, ignore_errors=True)


# The small data sets. Image k is a picture of one color, color_of(k), which survives JPEG and resizing.


def color_of(k):
    return [20 + 50 * digit for digit in (k // 25, k // 5 % 5, k % 5)]


def save_picture(path, k):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 6), tuple(color_of(k))).save(path)


AGES, GENDERS, RACES = (5, 30, 60), 2, 4
UTKFACE = {k: f"{AGES[k % 3]}_{k // 3 % 2}_{k // 6 % 4}_{k}.jpg" for k in range(48)}
CELEBA = {k: f"{k:06}.jpg {' '.join('1' if k >> bit & 1 else '-1' for bit in range(3))}" for k in range(1, 25)}
BFFHQ = {k: f"{k // 4}_{k // 2 % 2}_{k % 2}.png" for k in range(16)}        # a quarter in each folder
BFFHQ_FOLDERS = ("0.5pct/align/0", "0.5pct/align/1", "0.5pct/conflict/0", "test")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A folder with a small UTKFace, CelebA and BFFHQ."""
    root = tmp_path_factory.mktemp("small")
    for k, name in UTKFACE.items():
        save_picture(root / "UTKFace" / name, k)
    for k, row in CELEBA.items():
        save_picture(root / "CelebA" / "img_align_celeba" / row.split()[0], k)
    header = f"{len(CELEBA)}\nAttractive Male Young\n"
    (root / "CelebA" / "list_attr_celeba.txt").write_text(header + "\n".join(CELEBA.values()) + "\n")
    partition = [f"{row.split()[0]} {celeba_partition(k)}" for k, row in CELEBA.items()]
    (root / "CelebA" / "list_eval_partition.txt").write_text("\n".join(partition) + "\n")
    for k, name in BFFHQ.items():
        save_picture(root / "bffhq" / BFFHQ_FOLDERS[k // 4] / name, k)
    return root


def celeba_partition(k):
    return 0 if k // 4 % 2 else 2       # every cell of Attractive and Male trains and tests


def true_label(name, k):
    """Return the (class, group) of image k of a small data set."""
    if name == "UTKface":
        return ("under 20", "20 to 39", "40 and over")[k % 3], ("White", "Black", "Asian", "Indian")[k // 6 % 4]
    if name == "CelebA":
        return ("attractive" if k & 1 else "not attractive"), ("male" if k & 2 else "female")
    return ("young", "old")[k // 2 % 2], ("female", "male")[k % 2]


def labels_of(data):
    """Return (image number, class, group) of every image of a split, its number read from its color."""
    colors = data.images.float().mean((2, 3))
    digits = ((colors - 20) / 50).round()
    is_known = ((colors - (20 + 50 * digits)).abs().amax(1) < 8).tolist()       # not a damaged picture
    numbers = (digits @ torch.tensor([25.0, 5.0, 1.0])).int().tolist()
    return [(k, data.class_names[label], data.group_names[group]) for known, k, label, group
            in zip(is_known, numbers, data.labels.tolist(), data.groups.tolist(), strict=True) if known]


def loaded(name, root, **options):
    """Return the data set, or None if it is refused; any other exception than UserError is a failure."""
    try:
        return get_dataset(name, root, progress=False, **{"im_size": 8} | options)
    except UserError as error:
        assert str(error).strip()
        return None


def copy_of(small, folder, root):
    shutil.copytree(small / folder, Path(root) / folder)
    return Path(root)


def damaged(content, data):
    """Return bytes with a few of them overwritten, replaced by more or fewer, or cut off."""
    start = data.draw(st.integers(0, len(content)))
    new = data.draw(st.one_of(st.binary(max_size=6), st.sampled_from([b"\n", b",", b" 7 ", b"../", b"\xff\xd8", b""])))
    length = data.draw(st.sampled_from([len(new), 0, 1, 4, 40]))
    return content[:start] + new + (content[start + length:] if data.draw(st.booleans()) else b"")


@pytest.mark.parametrize(("name", "train", "test"), [("UTKface", 24, 24), ("CelebA", 12, 12), ("BFFHQ", 12, 4)])
def test_the_undamaged_sets_are_read_with_the_right_labels(small, tmp_path, name, train, test):
    shutil.copytree(small, tmp_path / "copy")
    data = loaded(name, tmp_path / "copy")
    pairs = labels_of(data.train) + labels_of(data.test)
    assert (len(data.train), len(data.test)) == (train, test) and len({k for k, *_ in pairs}) == train + test
    assert all((label, group) == true_label(name, k) for k, label, group in pairs)


@given(data=st.data())
def test_a_damaged_list_of_celeba_is_refused_or_gives_no_wrong_label(small, data):
    name = data.draw(st.sampled_from(["list_attr_celeba.txt", "list_eval_partition.txt"]))
    with tempfile.TemporaryDirectory() as root:
        path = copy_of(small, "CelebA", root) / "CelebA" / name
        before = path.read_bytes()
        path.write_bytes(damaged(before, data))
        dataset = loaded("CelebA", root)
        changed = {*path.read_text(errors="replace").split("\n")} - {*before.decode().split("\n")}
        for split, number in ((dataset.train, 0), (dataset.test, 2)) if dataset else ():
            for k, label, group in labels_of(split):
                if not any(f"{k:06}" in line for line in changed):      # its own row is as it was
                    assert (label, group) == true_label("CelebA", k) and celeba_partition(k) == number


def save_mnist(root):
    """Write a small MNIST, whose pictures show their own number; return the folder of its files."""
    raw = Path(root) / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split in ("train", "t10k"):
        (raw / f"{split}-images-idx3-ubyte").write_bytes(idx(binary_pictures(40)))
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(idx(np.arange(40) % 10))
    return raw


def check_mnist(raw):
    """Check the labels and colors of every picture whose number can be read, if the files are accepted."""
    dataset, checked = loaded("Colored_MNIST_foreground", raw.parent.parent, im_size=None), 0
    for split, images in (("train", dataset.train), ("t10k", dataset.test)) if dataset else ():
        assert len(images) == 40
        written = (raw / f"{split}-labels-idx1-ubyte").read_bytes()[8:]
        for number, color, label, group in decoded_pictures(images):
            assert label == written[number] and (color == PALETTE[group]).all()
            assert images.class_names[label] == DIGITS[label]
            checked += 1
    return checked


def test_undamaged_mnist_files_are_read_with_the_right_labels(tmp_path):
    assert check_mnist(save_mnist(tmp_path)) == 80


@given(data=st.data())
def test_damaged_mnist_files_are_refused_or_give_no_wrong_label(data):
    with tempfile.TemporaryDirectory() as root:
        raw = save_mnist(root)
        path = data.draw(st.sampled_from(sorted(raw.iterdir())))
        path.write_bytes(damaged(path.read_bytes(), data))
        assert check_mnist(raw) in (0, *range(70, 81))      # all but the pictures that were damaged


def binary_pictures(count):
    """Return pictures (count, 28, 28) that show their own number in binary, in two rows of blocks."""
    pictures = np.zeros((count, 28, 28))
    for number, bit in itertools.product(range(count), range(6)):
        for row in (2, 20):     # far apart: damage reaches one of them
            pictures[number, row, 4 * bit : 4 * bit + 4] = 255 * (number >> bit & 1)
        pictures[number, 11, 11] = 255      # a pixel that always has the color
    return pictures


def decoded_pictures(images):
    """Yield (number, color, label, group) of the colored pictures whose two rows agree. Padding: 4 on top and left."""
    for pixels, label, group in zip(images.images.numpy(), images.labels.tolist(), images.groups.tolist(), strict=True):
        rows = [pixels[:, 4 + row, 4:28].max(0).reshape(6, 4) > 0 for row in (2, 20)]
        if (rows[0] == rows[1]).all() and pixels[:, 15, 15].any():
            yield int((rows[0][:, 0] * 2 ** np.arange(6)).sum()), pixels[:, 15, 15], label, group


def idx(array):
    """Return the bytes of an idx file."""
    lengths = b"".join(length.to_bytes(4, "big") for length in array.shape)
    return bytes([0, 0, 8, array.ndim]) + lengths + array.astype(np.uint8).tobytes()


@given(name=TEXT, data=st.data())
def test_any_file_name_in_utkface_is_labeled_right_left_out_or_refused(small, name, data):
    numbers = data.draw(st.lists(st.one_of(st.integers(-5, 200).map(str), TEXT), min_size=1, max_size=5))
    stem = "_".join([*numbers, name]).replace("/", "")[:60]
    with tempfile.TemporaryDirectory() as root:
        copy_of(small, "UTKFace", root)
        try:
            save_picture(Path(root) / "new.jpg", 100)
            (Path(root) / "new.jpg").rename(Path(root) / "UTKFace" / f"{stem}.jpg")
        except (OSError, UnicodeError):
            return                                      # no such file can exist here
        dataset = loaded("UTKface", root)
        triples = labels_of(dataset.train) + labels_of(dataset.test)
        match = re.match(r"(\d{1,3})_([01])_([0-4])_", stem, re.ASCII)
        is_used = match and match[3] != "4" and not stem.startswith(".")
        assert sorted(k for k, *_ in triples) == [*UTKFACE, *[100] * bool(is_used)]
        for k, label, group in triples:
            if k in UTKFACE:
                assert (label, group) == true_label("UTKface", k)
            else:
                age = int(match[1])
                assert label == UTKFACE_NAMES["age"][(age >= 20) + (age >= 40)]
                assert group == UTKFACE_NAMES["race"][int(match[3])]


@given(data=st.data(), skip=st.booleans())
def test_a_damaged_image_is_read_left_out_or_named_and_moves_no_label(small, data, skip):
    with tempfile.TemporaryDirectory() as root:
        copy_of(small, "bffhq", root)
        k = data.draw(st.sampled_from([*BFFHQ]))
        path = Path(root) / "bffhq" / BFFHQ_FOLDERS[k // 4] / BFFHQ[k]
        path.write_bytes(damaged(path.read_bytes(), data))
        try:
            dataset = get_dataset("BFFHQ", root, progress=False, im_size=8, skip_bad_images=skip)
        except UserError as error:
            assert not skip and path.name in str(error)
        else:
            triples = labels_of(dataset.train) + labels_of(dataset.test)
            assert {number for number, *_ in triples} | {k} == {*BFFHQ}
            assert all((label, group) == true_label("BFFHQ", number) for number, label, group in triples if number != k)
            assert len(dataset.train) + len(dataset.test) in (15, 16)


@given(data=st.data())
def test_a_damaged_checkpoint_is_intact_or_refused(data):
    state = {"iteration": 3, "images": torch.arange(12.0), "momentum": None, "sets": [], "seconds": 1.5}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(folder, state)
        path = Path(folder) / checkpoint.NAMES[0]
        content = path.read_bytes()
        path.write_bytes(damaged(content, data))
        state_read = checkpoint.load(folder, lambda _: None)
        assert (state_read is None) == (path.read_bytes() != content)
        if state_read is not None:
            torch.testing.assert_close(state_read, state, rtol=0, atol=0)


@given(mode=st.sampled_from(["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "I", "F", "YCbCr", "HSV", "LAB"]),
       size=st.tuples(st.integers(1, 40), st.integers(1, 40)), level=st.integers(0, 255))
def test_images_of_any_mode_and_size_become_rgb_of_the_right_color(small, mode, size, level):
    with tempfile.TemporaryDirectory() as root:
        copy_of(small, "bffhq", root)
        picture, buffer = Image.new(mode, size), io.BytesIO()
        if mode != "P":
            bands = (level,) * len(picture.getbands())
            picture.paste(bands if len(bands) > 1 else 257 * level if mode == "I;16" else level, (0, 0, *size))
        try:
            picture.save(buffer, "TIFF")
        except (OSError, KeyError, ValueError):
            return                                      # no TIFF has this mode
        (Path(root) / "bffhq" / "test" / "9_0_1.png").write_bytes(buffer.getvalue())
        dataset = loaded("BFFHQ", root)
        assert dataset is None or len(dataset.test) == 5
        if dataset is not None and mode not in ("LA", "RGBA", "I", "F"):        # Pillow converts these to one color
            expected = (level,) * 3 if mode == "I;16" else picture.convert("RGB").getpixel((0, 0))
            pixels = dataset.test.images[-1].int()      # 9_0_1.png is the last of its folder
            assert ((pixels - torch.tensor(expected).view(3, 1, 1)).abs() <= 1).all()
