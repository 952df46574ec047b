"""A user's own images: a folder with a CSV, or with folders class/group/. Imported on demand, as it needs pandas."""

from fairdd.datasets.base import Dataset


def load_folder(request) -> Dataset:
    """Load the data set that a DatasetRequest for "Folder" describes; see custom/folder.py."""
    from fairdd.datasets.custom import folder

    return folder.load_folder(request)
