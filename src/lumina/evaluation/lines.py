"""Measured numbers, each with how sure it is, and the table that shows them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from lumina.evaluation.intervals import interval_of_mean, wilson

_FORMS = {"share": "{:.1%}", "dB": "{:.2f} dB", "": "{:.4g}"}


@dataclass(frozen=True)
class Line:
    """One measured number.

    Args:
        section: What is measured.
        what: On which part of it.
        count: Samples.
        value: A share, decibels, or a plain number.
        low: Lower end of the 95 % interval.
        high: Upper end of it.
        unit: "share", "dB", or "" for a plain number.
    """

    section: str
    what: str
    count: int
    value: float
    low: float
    high: float
    unit: str = "share"


def share(section: str, what: str, are_right: Sequence[bool]) -> Line:
    """How many of one sample or more are right."""
    right, count = sum(are_right), len(are_right)
    return Line(section, what, count, right / count, *wilson(right, count))


def mean(section: str, what: str, values: Sequence[float], *, unit: str = "") -> Line:
    """Mean of two values or more. That of one value has no interval but itself."""
    if len(values) == 1:
        return Line(section, what, 1, values[0], values[0], values[0], unit)
    return Line(section, what, len(values), fmean(values), *interval_of_mean(values), unit)


def rows_of(lines: Sequence[Line], beside: Mapping[str, Sequence[Line]] | None = None) -> list[str]:
    """Rows of a table, below one that names the columns.

    Args:
        lines: In the order of their sections.
        beside: More columns by their names, with the values that other samples have in the same
            sections and parts, as far as they were measured.
    """
    others = {
        name: {(line.section, line.what): _write(line.value, line.unit) for line in more}
        for name, more in (beside or {}).items()
    }
    widths = [max(10, *(len(line.section) for line in lines)), max(len(x.what) for x in lines)]
    head = f"{'':{widths[0]}} {'':{widths[1]}} {'count':>6} {'value':>8}   95 % interval   "
    rows = [(head + "".join(f"   {name}" for name in others)).rstrip()]
    section = None
    for line in lines:
        first = "" if line.section == section else line.section
        section = line.section
        value, low, high = (_write(v, line.unit) for v in (line.value, line.low, line.high))
        row = f"{first:{widths[0]}} {line.what:{widths[1]}} {line.count:6} {value:>8}   "
        row += f"{f'{low} to {high}':16}"
        for name, values in others.items():
            row += f"   {values.get((line.section, line.what), ''):>{len(name)}}"
        rows.append(row.rstrip())
    return rows


def _write(value: float, unit: str) -> str:
    return _FORMS[unit].format(value).replace("%", " %")
