"""How figures, values and texts from elsewhere read."""

import math

import numpy as np
import pytest

from search.core.readable import Grid, figure, value, visible


@pytest.mark.parametrize(
    ("measured", "read"),
    [
        (0.914, "0.9140"), (0.0912, "0.09120"), (1e-6, "1.000e-06"), (0.00012345, "0.0001234"), (0.0, "0"),
        (-0.0953, "-0.09530"), (1.0, "1.000"), (0.99999, "1.000"), (98.125, "98.12"), (999.96, "1000"),
        (1234.5, "1234"), (12345.678, "12346"), (999999.4, "999999"), (1234567.0, "1.235e+06"), (2.5e30, "2.500e+30"),
        (-12345.678, "-12346"), (math.inf, "inf"), (math.nan, "nan"), (np.float32(0.914), "0.9140"), (7, "7.000"),
    ],
)  # fmt: skip
def test_figure_has_four_significant_digits(measured, read):
    assert figure(measured) == read


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (0.003, "0.003"), (1e-05, "1e-05"), (0.00312345, "0.003123"), (5.0, "5"), (64, "64"), (1000000, "1000000"),
        (2500000.0, "2.5e+06"), (True, "true"), (False, "false"), (None, "-"), ("adamw", "adamw"),
        ("two\nlines\tand \x1b[2J", "two\\nlines\\tand \\x1b[2J"),
    ],
)  # fmt: skip
def test_value_of_a_hyperparameter_is_one_short_line(given, read):
    assert value(given) == read


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("over\rwritten\x08", "over\\rwritten\\x08"),
        ("\x9b31m of eight bits, \x7f", "\\x9b31m of eight bits, \\x7f"),
        ("txt.\u202egpj", "txt.\\u202egpj"),
        ("half \udce9", "half \\udce9"),
        ("Türmerstraße 日本\n\tstays", "Türmerstraße 日本\n\tstays"),
    ],
)
def test_control_characters_become_visible(text, read):
    assert visible(text) == read


def test_markdown_table_keeps_a_bar_inside_its_cell():
    lines = Grid(["name", "test"], [["a|b", "0.9140"]]).markdown()
    assert lines == ["| name | test |", "| --- | --- |", "| a\\|b | 0.9140 |"]
