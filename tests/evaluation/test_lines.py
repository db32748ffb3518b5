import pytest

from lumina.evaluation.lines import Line, mean, rows_of, share


def test_a_share_lies_in_its_interval():
    line = share("kinds", "all", [True, False, True, True])
    assert (line.value, line.count) == (0.75, 4)
    assert line.low < 0.75 < line.high


def test_a_mean_of_equal_values_is_certain():
    assert mean("steps", "all", [2.0, 2.0, 2.0]) == Line("steps", "all", 3, 2.0, 2.0, 2.0, "")


def test_the_mean_of_one_value_is_that_value():
    assert mean("steps", "all", [2.5]).value == 2.5


def test_columns_beside_hold_what_was_measured_of_the_same():
    lines = [share("kinds", "all", [True, False]), mean("kinds", "size", [0.123456, 0.2])]
    rows = rows_of(lines, {"true examples": [share("kinds", "all", [True])]})
    assert rows[0].split()[-2:] == ["true", "examples"]
    assert rows[1].endswith("100.0 %")
    assert len(rows[1]) == len(rows[0])
    assert "0.1617" in rows[2]
    assert "%" not in rows[2]


@pytest.mark.parametrize(("unit", "shown"), [("share", "25.0 %"), ("dB", "0.25 dB"), ("", "0.25")])
def test_a_value_is_shown_in_its_unit(unit, shown):
    assert shown in rows_of([Line("a", "b", 1, 0.25, 0.25, 0.25, unit)])[1]
