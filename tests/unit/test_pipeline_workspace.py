"""The work folder of a run."""

from __future__ import annotations

from pathlib import Path

from recsae.pipeline.workspace import Workspace


def test_a_copied_folder_holds_every_file_but_what_a_killed_worker_left_half_moved_in(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path / "root"), "r-1")
    for name in ("dictionary/concepts.json", "dictionary/probe.safetensors", "dictionary/deeper/file"):
        workspace.write(name, b"whole")
    workspace.write("dictionary/.3f2a", b"half")
    copy = workspace.copy_folder("dictionary", tmp_path / "scratch")
    files = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    assert files == {"concepts.json", "probe.safetensors", "deeper/file"}
    (copy / "concepts.json").write_bytes(b"changed")
    assert workspace.read("dictionary/concepts.json") == b"whole"
