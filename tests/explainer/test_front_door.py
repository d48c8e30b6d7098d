"""`import dexar_fast`: the names it offers, and what it says where the extension is missing."""

from __future__ import annotations

import sys

import pytest

import dexar_fast
from dexar_fast import BackendError, ExtensionError

EXTENSIONS = {
    "without_extension": "not built: install a C[+][+] compiler such as g[+][+], then dexar_fast again",
    "broken_extension": r"does not load \(libstdc.*\): install dexar_fast again on this machine",
}


def test_dir_shows_the_public_names() -> None:
    shown = [name for name in dir(dexar_fast) if not name.startswith("__")]
    assert shown == sorted(dexar_fast.__all__)
    assert "Explainer" in shown and "__version__" in dir(dexar_fast)
    assert all(hasattr(dexar_fast, name) for name in shown)


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_a_pool_without_the_extension_is_one_line_that_says_what_to_do(
    extension: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "dexar_fast.kvcache.pool", raising=False)
    request.getfixturevalue(extension)
    message = f"a KVPool needs the C\\+\\+ extension, which is {EXTENSIONS[extension]}"
    with pytest.raises(ExtensionError, match=f"^{message}$") as caught:
        from dexar_fast import KVPool  # noqa: F401
    assert isinstance(caught.value, BackendError) and isinstance(caught.value, ImportError)
    assert caught.value.__suppress_context__
