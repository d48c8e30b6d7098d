"""Data sets by name: what is asked of a caller, and that every name leads to a reader with help."""

import pytest

from dexar_fast.data import help_of, names, read
from dexar_fast.errors import InputError


@pytest.mark.parametrize("name", names())
def test_every_name_has_a_reader_that_says_what_it_reads(name):
    assert len(help_of(name)) > 40


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("pascal", {"root": "."}, "data set 'pascal' is none of coco-captions, .*vqav2$"),
        ("vo", {"root": "."}, "did you mean 'voc'?"),
        ("voc", {}, r"voc: root must be given: see help_of\('voc'\)"),
        ("eagle", {}, "eagle: root and images must be given"),
        ("voc", {"root": ".", "year": 2012}, "voc: 'year' is no option of this data set: it has root, split"),
        ("shapes", {"root": "."}, "shapes: 'root' is no option of this data set: it has count, scenes"),
    ],
)
def test_a_wrong_call_says_what_is_due(name, given, message):
    with pytest.raises(InputError, match=message):
        read(name, **given)
