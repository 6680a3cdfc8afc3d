"""Names of code that is not handful's: imported by name, and of packages that are trusted only."""

import pytest

from handful.errors import ArtifactError, UserError
from handful.own_code import check_trusted, imported


@pytest.mark.parametrize(
    ("name", "trust"), [("mlp", ()), ("/home/a:b", ()), ("a:f", ("a",)), ("a.b.c:f", ("x", "a")), ("a.b:f", ("a.b",))]
)
def test_a_package_is_trusted_with_its_parts(name, trust):
    check_trusted(name, trust, "backbone")


@pytest.mark.parametrize(
    ("name", "trust"), [("a:f", ()), ("ab:f", ("a",)), ("a:f", ("a.b",)), (":f", ("a",)), (["a:f"], ("a",)), (None, ())]
)
def test_no_other_package_is_trusted(name, trust):
    with pytest.raises(ArtifactError, match=r"trust=|is not a name"):
        check_trusted(name, trust, "backbone")


def test_what_is_named_is_imported():
    assert imported("handful.own_code:imported", "backbone") is imported
    with pytest.raises(UserError, match=r"The encoder 'no_such\.package:f' cannot be imported .*PYTHONPATH"):
        imported("no_such.package:f", "encoder")
