"""How a stage works through a provider's batch API, in rounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neuron_atlas.workflows.models import calls as calls_module
from neuron_atlas.workflows.models.calls import OpenCalls
from neuron_atlas.workflows.run.items import chunks
from neuron_atlas.workflows.run.stage import Item


class Provider(OpenCalls):
    """Answers what is handed in by the next round."""

    def __init__(self) -> None:
        self.__dict__ |= {"account": self, "submitted": [], "answered": set()}

    def batch_calls(self, path: Path) -> Any:
        return path

    def submit(self, collected: list[Path]) -> None:
        self.submitted.append([path.stem for path in collected])
        self.answered.update(path.stem for path in collected)

    def _wait_for_batches(self) -> None:
        pass


def test_requests_of_some_items_at_a_time_lie_on_the_disk_until_all_are_answered(
    monkeypatch, tmp_path
):
    """Ten items of two neurons, and room for the requests of six neurons."""
    monkeypatch.setattr(calls_module, "_CHUNK", 6)
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

    provider.work_by_batch(spools, work)
    assert [len(names) for names in provider.submitted] == [3, 3, 3, 1]
    assert done == {item.key for item in items}
    assert not spools.exists()
