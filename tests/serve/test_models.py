"""The models of a server: loaded, or a message; none that a visitor names."""

from pathlib import Path

import pytest

from dexar_fast.errors import InputError, ModelError
from dexar_fast.explainer import Explainer
from dexar_fast.serve.models import EMBEDDED, Models


def test_without_names_the_embedded_model_is_served() -> None:
    models = Models.load([])
    assert models.names == [EMBEDDED] and models.failures == []
    assert isinstance(models.of(EMBEDDED), Explainer)


def test_a_model_that_fails_is_a_message_and_the_others_are_served(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text('{"model_type": "llava"}')
    embedded = Path(Models.load([]).of(EMBEDDED).model.config.name_or_path)
    models = Models.load([str(broken), str(embedded)] if embedded.is_dir() else [str(broken)])
    assert models.names[0] == str(broken) and len(models.failures) == 1
    assert models.labels[0] == f"{broken} (failed to load)" and models.first == models.names[-1]
    with pytest.raises(ModelError, match="broken"):
        models.of(str(broken))


@pytest.mark.parametrize("name", ["/etc", "", None, 3, "gpt2", "../shapes-llava"])
def test_no_other_model_is_loaded(name: object) -> None:
    with pytest.raises(InputError, match="this server does not serve that model"):
        Models.load([]).of(name)
