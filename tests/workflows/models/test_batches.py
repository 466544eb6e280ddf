"""How a stage works through a provider's batch API, in rounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neuron_atlas.workflows.models import batches
from neuron_atlas.workflows.models.batches import work_by_batch
from neuron_atlas.workflows.run.items import chunks
from neuron_atlas.workflows.run.stage import Item


class Provider:
    """Answers what is handed in by the next round."""

    def __init__(self) -> None:
        self.account = self
        self.handed_in: list[list[str]] = []
        self.answered: set[str] = set()

    def collecting(self, path: Path) -> Path:
        return path

    def hand_in(self, collected: list[Path]) -> None:
        self.handed_in.append([path.stem for path in collected])
        self.answered.update(path.stem for path in collected)

    def wait_for_batches(self) -> None:
        pass


def test_requests_of_some_items_at_a_time_lie_on_the_disk_until_all_are_answered(
    monkeypatch, tmp_path
):
    """Ten items of two neurons, and room for the requests of six neurons."""
    monkeypatch.setattr(batches, "_CHUNK", 6)
    provider, spools, done = Provider(), tmp_path / "spools", set()
    items = [Item(f"part-{number}", 2, ()) for number in range(10)]
    spools.mkdir()
    (spools / "of-a-killed-run.jsonl").touch()

    def work(*, calls: Any, chunk_size: int, after_chunk: Any) -> None:
        for some in chunks([item for item in items if item.key not in done], chunk_size):
            for item in some:
                spool = calls(item)
                if item.key in provider.answered:
                    done.add(item.key)
                else:
                    spool.parent.mkdir(exist_ok=True)
                    spool.touch()
            after_chunk()

    work_by_batch(provider, spools, work)  # type: ignore[arg-type]
    assert [len(names) for names in provider.handed_in] == [3, 3, 3, 1]
    assert done == {item.key for item in items}
    assert not spools.exists()
