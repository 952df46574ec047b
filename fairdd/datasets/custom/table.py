"""The table of a user's images, one row per image, and what its columns are called."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from fairdd.core.errors import UserError


@dataclass(frozen=True, eq=False)
class ImageTable:
    """What is known of N images, one row each.

    title: where the table was read, for messages; data: attribute columns, strings, indexed by the row's name in
    messages; paths: (N,) str, as written and later inside the data folder; splits: (N,) "train", "val" or "test", or
    None if no split is given; notes: what was inferred, for the user; group_unknown: (N,) bool, or None if all groups
    are known.
    """

    title: str
    data: pd.DataFrame
    paths: np.ndarray
    splits: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    group_unknown: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def keep(self, rows: np.ndarray, *notes: str) -> "ImageTable":
        """Return the table of these rows, given by ascending positions or a mask; the notes are added to its own."""
        splits, unknown = (None if column is None else column[rows] for column in (self.splits, self.group_unknown))
        return replace(self, data=self.data.iloc[rows], paths=self.paths[rows], splits=splits, group_unknown=unknown,
                       notes=self.notes + notes)

    def with_known_groups(self) -> "ImageTable":
        """Return the table without the rows of unknown group."""
        return self if self.group_unknown is None else self.keep(~self.group_unknown)

    def row_error(self, row: int, message: str) -> UserError:
        """Return an error that names the row."""
        return UserError(f"{self.title}, {self.data.index[row]}: {message}")


def simplify(name: str) -> str:
    """Return a column's name without case, spaces, hyphens and underscores."""
    return name.lower().translate(str.maketrans("", "", " -_"))


def match_column(title: str, data: pd.DataFrame, name: str, purpose: str) -> str:
    """Return the column of that name, spelled as in the table; case matters only between columns that differ in nothing
    else. purpose: what it is for, in the UserError for an unknown column."""
    matches = [name] if name in data else [column for column in data if column.lower() == name.lower()]
    if len(matches) != 1:
        raise UserError(f"{title} has no column {name!r} for {purpose}; its columns: {', '.join(data) or 'none'}")
    return matches[0]
