"""Leaves out the types of which this release of transformers computes two things."""

import pytest
import transformers
from packaging.version import Version


@pytest.fixture(autouse=True)
def is_steady(request: pytest.FixtureRequest) -> None:
    """Before transformers 5.24 GIT's generate() counts the positions of an answer twice, its forward once."""
    asked = getattr(request.node, "callspec", None)
    name = "" if asked is None else str(asked.params.get("name"))
    if name.partition("/")[0] == "git" and Version(transformers.__version__) < Version("5.24"):
        pytest.skip("before transformers 5.24 GIT's forward is not what its generate() computes")
