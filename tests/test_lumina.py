import subprocess
import sys

import pytest

import lumina


def test_public_names_are_what_they_say():
    for name in set(dir(lumina)) - {"__version__"}:
        assert getattr(lumina, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'sparkle'"):
        lumina.sparkle  # noqa: B018


def test_importing_the_package_loads_nothing_else():
    program = "import sys, lumina; print([n for n in sys.modules if n.startswith('lumina.')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_the_version_is_that_of_the_distribution():
    from importlib.metadata import version

    assert lumina.__version__ == version("lumina-t2x")
