"""Write a synthetic set for other tools. `python -m fairdd.export RUN OUT --format folder` is what ImageFolder reads.

folder  one folder of PNG files per class, labels.csv, info.json. Pixels are clamped to black and white and rounded to
        8 bits: what an optimizer moved beyond them, where no color lies, is lost
npz     images (M, H, W, C) float32 on the pixel scale, 0 black and 1 white, neither clamped nor rounded; labels (M,),
        mean and std (C,), class_names: (images - mean) / std is what networks are trained on
pt      [images, labels], the field's plain format: images (M, C, H, W) normalized, labels (M,)
"""

import argparse
import csv
import json
import os
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fairdd.core.errors import UserError, report_user_errors
from fairdd.datasets.base import denormalize
from fairdd.flags import Parser, whole
from fairdd.run.checkpoint import write_flushed
from fairdd.run.synset_io import flags_of, read

LABELS, INFO = "labels.csv", "info.json"


@report_user_errors
def main(argv=None):
    args = make_parser().parse_args(argv)
    saved, out = read(args.run), Path(args.out)
    [one] = saved.choose(args.experiment).values()
    info = {"mean": saved.mean, "std": saved.std, "class_names": saved.class_names}
    check_complete(saved, one, info)
    info |= {"source": args.run, "experiment": args.experiment}
    info |= {"flags": flags_of(args.run)} if Path(args.run).is_dir() else {}
    try:
        make_room(out, args.format, args.overwrite, saved.path)
        FORMATS[args.format](out, one.images, one.labels, info)
    except OSError as error:
        raise UserError(f"{error.filename or out} cannot be written: {error.strerror}") from None
    print(f"set {args.experiment} of {len(saved.sets)}: {len(one.labels)} images are in {out}")
    if args.format == "folder":
        print(f"{beyond(one.images, info):.1%} of the values lay beyond black or white and were clamped")


def make_parser():
    parser = Parser(prog="python -m fairdd.export", description=__doc__, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("run", metavar="RUN", help="folder of a run, or its synthetic.pt")
    add("out", metavar="OUT", help="folder (--format folder) or file to write")
    add("--format", choices=list(FORMATS), required=True, help="see above")
    add("--experiment", type=whole(0), default=0, metavar="K", help="which synthetic set; default: %(default)s")
    add("--overwrite", action="store_true", help="replace an earlier export; other files are never touched")
    return parser


def check_complete(saved, one, info):
    """An export says how to read it, so the source must."""
    unsaid = [name for name, value in info.items() if value is None]
    if unsaid:
        raise UserError(f"{saved.path} does not say its {', '.join(unsaid)}; export the folder of a run")
    if set(one.labels.tolist()) != set(range(len(saved.class_names))):
        raise UserError(f"{saved.path}: expected images of every one of {len(saved.class_names)} classes")


def make_room(out, form, overwrite, source):
    """Refuse to overwrite anything unasked, the source ever; remove what an earlier export wrote."""
    if out.resolve() == source.resolve():
        raise UserError(f"{out} is the set to export; give another OUT")
    if out.exists() and out.is_dir() != (form == "folder"):
        raise UserError(f"{out} is a {'folder' if out.is_dir() else 'file'}; --format {form} writes the other")
    taken = any(out.iterdir()) if out.is_dir() else out.exists()
    if taken and not overwrite:
        raise UserError(f"{out} exists; give another OUT, or --overwrite to replace an earlier export")
    if taken and form == "folder":
        clear(out)


def clear(out):
    """Remove the images that an earlier export listed, and nothing else. Raises UserError if there are others."""
    with open(out / LABELS, newline="") if (out / LABELS).exists() else open(os.devnull) as file:
        ours = {out / row["path"] for row in csv.DictReader(file) if row.get("path")}
    found = set(out.glob("*/*"))
    if found - ours:
        raise UserError(f"{min(found - ours)} was not written by an export, and would be taken for an image of a "
                        "class; give another OUT")
    for path in found:
        path.unlink()
    for folder in {path.parent for path in found}:
        folder.rmdir()


def write_folder(out, images, labels, info):
    """PNG files as ImageFolder reads them: its order of folders is the order of labels, its order of files ours."""
    names = info["class_names"]
    folders = class_folders(names)
    rows = [(f"{folders[label]}/{number:05d}.png", label, names[label]) for number, label in enumerate(labels.tolist())]
    for folder in folders:
        (out / folder).mkdir(parents=True, exist_ok=True)
    with open(out / LABELS, "w", newline="") as file:      # first, so that a broken export can be replaced
        csv.writer(file).writerows([("path", "label", "class"), *rows])
    pixels = (255 * denormalize(images, info["mean"], info["std"])).round().byte()
    for (path, *_), image in zip(rows, pixels, strict=True):
        Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy()).save(out / path)
    write_file(out / INFO, (json.dumps(info, indent=1) + "\n").encode())


def class_folders(names):
    """A folder name for each class: its label first, so that sorting keeps their order; no odd letters."""
    digits = len(str(len(names) - 1))
    return [f"{label:0{digits}d}_{re.sub(r'[^A-Za-z0-9.-]+', '_', name)}" for label, name in enumerate(names)]


def write_npz(out, images, labels, info):
    """Arrays for NumPy and what builds on it, channels last."""
    content = BytesIO()
    mean, std = (np.float32(info[name]) for name in ("mean", "std"))
    np.savez(content, images=images.permute(0, 2, 3, 1).numpy() * std + mean, labels=labels.numpy(), mean=mean, std=std,
             class_names=np.array(info["class_names"]))
    write_file(out, content.getvalue())


def write_pt(out, images, labels, info):
    """The two tensors alone."""
    content = BytesIO()
    torch.save([images, labels], content)
    write_file(out, content.getvalue())


FORMATS = {"folder": write_folder, "npz": write_npz, "pt": write_pt}


def write_file(path, content):
    """Written aside, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    write_flushed(aside, content)
    os.replace(aside, path)


def beyond(images, info):
    """Share of the values that no pixel can show."""
    mean, std = (torch.tensor(info[name]).view(-1, 1, 1) for name in ("mean", "std"))
    pixels = images * std + mean
    return ((pixels < 0) | (pixels > 1)).double().mean().item()


if __name__ == "__main__":
    main()
