"""The Hub on loopback answers the unmodified client as the real one does."""

from pathlib import Path

import huggingface_hub.constants
import pytest
from hub import Hub
from huggingface_hub import HfApi
from huggingface_hub.errors import RemoteEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError


@pytest.fixture
def api(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HfApi:
    """Serve a model of three files; this process asks, though the user's own environment may say offline."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    for name in ("a/b/deep.txt", "a/top.txt", "ab.txt"):
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / name).write_text(name)
    hub.add_model("org/files", tmp_path / "files")
    return HfApi(endpoint=hub.url, token=False)


def test_what_is_not_there_is_named(api, hub, tmp_path):
    commit = hub.repos["models", "org/files"].sha
    assert api.model_info("org/files", revision=commit).sha == commit
    with pytest.raises(RepositoryNotFoundError):
        api.dataset_info("org/files")
    with pytest.raises(RevisionNotFoundError):
        api.model_info("org/files", revision="v2")
    with pytest.raises(RemoteEntryNotFoundError):
        api.hf_hub_download("org/files", "README.md", cache_dir=tmp_path / "cache")


def test_a_listing_holds_files_and_folders(api):
    def listed(under: str | None, recursive: bool) -> list[str]:
        return [entry.path for entry in api.list_repo_tree("org/files", under, recursive=recursive)]

    assert listed(None, False) == ["a", "ab.txt"]
    assert listed("a", False) == ["a/b", "a/top.txt"]
    assert listed(None, True) == ["a", "a/b", "a/b/deep.txt", "a/top.txt", "ab.txt"]
