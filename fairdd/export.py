"""Export a synthetic set for other tools, for example `python -m fairdd.export RUN OUT --format folder`.

folder  one folder of PNG files per class as ImageFolder reads them, labels.csv, info.json. Pixels are clamped to [0, 1]
        and rounded to 8 bits: values that the optimizer moved beyond black or white are lost
npz     images (M, H, W, C) float32, 0 is black and 1 is white, neither clamped nor rounded; labels (M,), mean and
        std (C,), class_names: networks are trained on (images - mean) / std
pt      [images, labels], the plain DC/DM format: images (M, C, H, W) normalized, labels (M,)
"""

import argparse
import csv
import json
import os
import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fairdd.core.errors import UserError, report_user_errors
from fairdd.flags import Parser, int_at_least
from fairdd.matching.synset import LabeledImages
from fairdd.run.checkpoint import write_flushed
from fairdd.run.synset_files import EXPORT_INFO, EXPORT_LABELS
from fairdd.run.synset_io import SavedSets, read_saved_sets, run_flags


@report_user_errors
def main(argv: list[str] | None = None) -> None:
    args = make_parser().parse_args(argv)
    saved, out = read_saved_sets(args.run), Path(args.out)
    [syn] = saved.choose(args.experiment).values()
    info = {"mean": saved.mean, "std": saved.std, "class_names": saved.class_names}
    check_complete(saved, syn, info, args.format)
    flags = run_flags(args.run)
    info |= {"source": args.run, "experiment": args.experiment} | ({"flags": flags} if flags else {})
    try:
        prepare_output(out, args.format, args.overwrite, saved.path)
        FORMATS[args.format](out, syn.images, syn.labels, info)
    except OSError as error:
        raise UserError(f"{error.filename or out} cannot be written: {error.strerror}") from None
    progress = saved.progress(args.experiment)
    print(f"set {args.experiment} of {len(saved.sets)}: wrote {len(syn.labels)} images to {out}"
          + f" ({progress})" * bool(progress))


def make_parser() -> Parser:
    parser = Parser(prog="python -m fairdd.export", description=__doc__, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("run", metavar="RUN", help="folder of a run or an export, or its file")
    add("out", metavar="OUT", help="folder (--format folder) or file to write")
    add("--format", choices=list(FORMATS), required=True, help="see above")
    add("--experiment", type=int_at_least(0), default=0, metavar="K", help="which synthetic set; default: %(default)s")
    add("--overwrite", action="store_true", help="replace an earlier export; other files are never touched")
    return parser


def check_complete(saved: SavedSets, syn: LabeledImages, info: dict, form: str) -> None:
    """Raise UserError if the source lacks what an export has to state, or has labels that the format cannot hold."""
    missing_keys = [name for name, value in info.items() if value is None]
    if missing_keys:
        raise UserError(f"{saved.path} does not state its {', '.join(missing_keys)}; export the folder of a run")
    if syn.labels.ndim == 2 and form == "folder":
        raise UserError(f"{saved.path} holds distributions over classes, which folders cannot; use --format npz or pt")
    if syn.labels.ndim == 1 and set(syn.labels.tolist()) != set(range(len(saved.class_names))):
        raise UserError(f"{saved.path}: expected images of each of its {len(saved.class_names)} classes")


def prepare_output(out: Path, form: str, overwrite: bool, source: Path) -> None:
    """Remove an earlier export. Raises UserError if anything would be overwritten unasked, or the source at all."""
    if out.resolve() == source.resolve():
        raise UserError(f"{out} is the set to export; give another OUT")
    if out.exists() and out.is_dir() != (form == "folder"):
        raise UserError(f"{out} is a {'folder' if out.is_dir() else 'file'}; --format {form} writes the other")
    in_use = any(out.iterdir()) if out.is_dir() else out.exists()
    if in_use and not overwrite:
        raise UserError(f"{out} exists; give another OUT, or --overwrite to replace an earlier export")
    if in_use and form == "folder":
        remove_export(out)


def remove_export(out: Path) -> None:
    """Remove the images that an earlier export listed. Raises UserError, before removing any, if there are others."""
    with open(path if (path := out / EXPORT_LABELS).exists() else os.devnull, newline="") as file:
        exported = {out / row["path"] for row in csv.DictReader(file) if row.get("path")}
    present = set(out.glob("*/*"))
    if present - exported:
        raise UserError(f"{min(present - exported)} was not written by an export, and would be read as an image of a "
                        "class; give another OUT")
    for path in present:
        path.unlink()
    for folder in {path.parent for path in present}:
        folder.rmdir()


def write_folder(out: Path, images: Tensor, labels: Tensor, info: dict) -> None:
    """Write PNG files whose sorted folders are in the order of labels and whose sorted files are in the set's order."""
    names = info["class_names"]
    folders = class_folders(names)
    rows = [(f"{folders[label]}/{index:05d}.png", label, names[label]) for index, label in enumerate(labels.tolist())]
    for folder in folders:
        (out / folder).mkdir(parents=True, exist_ok=True)
    with open(out / EXPORT_LABELS, "w", newline="") as file:      # first, so that an incomplete export can be replaced
        csv.writer(file).writerows([("path", "label", "class"), *rows])
    mean, std = (torch.tensor(info[name]).view(-1, 1, 1) for name in ("mean", "std"))
    pixels = images * std + mean
    clamped = pixels.clamp(0, 1)
    for (path, *_), image in zip(rows, (255 * clamped).round().byte(), strict=True):
        Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy()).save(out / path)
    write_file(out / EXPORT_INFO, (json.dumps(info, indent=1) + "\n").encode())
    print(f"{(pixels != clamped).double().mean():.1%} of the values were beyond black or white and were clamped")


def class_folders(names: Sequence[str]) -> list[str]:
    """Return a folder name per class: the label first, so that sorting keeps the order; 80 safe characters at most."""
    digits = len(str(len(names) - 1))
    return [f"{label:0{digits}d}_{re.sub(r'[^A-Za-z0-9.-]+', '_', name)[:80]}" for label, name in enumerate(names)]


def write_npz(out: Path, images: Tensor, labels: Tensor, info: dict) -> None:
    content = BytesIO()
    mean, std = (np.float32(info[name]) for name in ("mean", "std"))
    np.savez(content, images=images.permute(0, 2, 3, 1).numpy() * std + mean, labels=labels.numpy(), mean=mean, std=std,
             class_names=np.array(info["class_names"]))
    write_file(out, content.getvalue())


def write_pt(out: Path, images: Tensor, labels: Tensor, info: dict) -> None:
    content = BytesIO()
    torch.save([images, labels], content)
    write_file(out, content.getvalue())


FORMATS = {"folder": write_folder, "npz": write_npz, "pt": write_pt}


def write_file(path: Path, content: bytes) -> None:
    """Write to a temporary file, then rename it, so that no reader ever sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    write_flushed(temporary, content)
    os.replace(temporary, path)


if __name__ == "__main__":
    main()
