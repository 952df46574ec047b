"""get_dataset: unknown names, options that a set does not support, values out of range."""

import re

import pytest

from fairdd.core.errors import UserError
from fairdd.datasets import DATASETS, get_dataset


def test_an_unknown_name_is_refused_with_the_known_names():
    with pytest.raises(UserError, match=re.escape(", ".join(DATASETS))):
        get_dataset("CIFAR10")


@pytest.mark.parametrize("name, option", [("Colored_Digits", dict(target_attr="age")), ("BFFHQ", dict(skew=0.5)),
                                          ("BFFHQ", dict(protected_attr="race")), ("UTKface", dict(skew=0.9))])
def test_an_unsupported_option_is_refused(name, option):
    with pytest.raises(UserError, match=f"--{next(iter(option))} is not supported for {name}; supported by: "):
        get_dataset(name, **option)


@pytest.mark.parametrize("option", [dict(skew=1.5), dict(skew=-0.1), dict(im_size=0), dict(data_seed=-1)])
def test_a_value_out_of_range_is_refused(option):
    with pytest.raises(UserError, match=f"--{next(iter(option))}"):
        get_dataset("Colored_Digits", **option)
