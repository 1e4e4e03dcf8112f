"""`hanse` offers what it lists, no more and no less, and importing it is free."""

import subprocess
import sys

import hanse


def test_every_listed_name_can_be_had_and_the_list_is_sorted() -> None:
    assert hanse.__all__ == sorted(hanse.__all__)
    for name in hanse.__all__:
        assert getattr(hanse, name) is not None
    assert dir(hanse) == hanse.__all__


def test_lazy_names_and_the_list_are_the_same() -> None:
    assert sorted([*hanse._HOME_OF, *hanse._PACKAGES]) == hanse.__all__  # noqa: SLF001 - its table


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(hanse, "fedavgg")


def test_importing_hanse_imports_no_torch() -> None:
    code = "import sys, hanse; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
