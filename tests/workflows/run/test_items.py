"""Work items: which are worked on, in which order, and the log file that each leaves."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import ray

from neuron_atlas.tasks.samples.source import SourceError
from neuron_atlas.workflows.run.errors import RunError
from neuron_atlas.workflows.run.exit_status import exit_status_of
from neuron_atlas.workflows.run.items import ItemRunner, chunks, reopen_items, unfinished_items
from neuron_atlas.workflows.run.stage import Item, Step, Worker

PARTS = [
    Item(f"part-{number}", number + 1, (f"{number}.txt", f"{number}.log")) for number in (0, 1)
]


def finish(item: Item, folder: Path) -> None:
    for name in item.files:
        (folder / name).touch()


def do_nothing(worker: Worker) -> None:
    pass


def write_after_the_level_below(worker: Worker) -> None:
    done = sorted(path.name for path in worker.folder.glob("*.txt"))
    worker.paths[0].write_text(" ".join(done), encoding="utf-8")


def warn(worker: Worker) -> list[str]:
    logging.getLogger("neuron_atlas.tasks.capture.capture").warning("halved the batch")
    logging.getLogger("other_package").warning("of no concern to a user")
    return ["a line for the user"]


def fail(worker: Worker) -> None:
    raise ZeroDivisionError("a defect")


def fail_plainly(worker: Worker) -> None:
    raise SourceError("data.path: no such folder")


class Counted:
    """Stands for a progress bar."""

    def __init__(self) -> None:
        self.units = 0

    def __call__(self, count: int) -> None:
        self.units += count

    def note(self, text: str) -> None:
        pass


def runner_of(work, folder: Path) -> ItemRunner:
    return ItemRunner("step", work, folder, folder / "logs", Counted())


def test_an_item_is_complete_when_all_its_files_are_there(tmp_path):
    finish(PARTS[0], tmp_path)
    finish(PARTS[1], tmp_path)
    (tmp_path / "1.log").unlink()
    assert unfinished_items(PARTS, tmp_path) == [PARTS[1]]


def test_an_item_that_leaves_no_file_is_done_in_every_run(tmp_path):
    always = Item("check", 1, ())
    assert unfinished_items([always], tmp_path) == [always]


def test_a_complete_item_with_a_failure_that_may_have_passed_is_done_again(tmp_path):
    for item in PARTS:
        finish(item, tmp_path)
    step = Step(
        "s", "parts", lambda *_: PARTS, do_nothing, should_retry=lambda item, _: item.size == 2
    )
    reopen_items(step, PARTS, tmp_path)
    assert unfinished_items(PARTS, tmp_path) == [PARTS[1]]
    assert not (tmp_path / "1.txt").exists()


def test_items_are_cut_into_chunks_of_about_a_size():
    items = [Item(str(number), 4, ()) for number in range(5)]
    assert [len(chunk) for chunk in chunks(items, 7)] == [2, 2, 1]
    assert [len(chunk) for chunk in chunks(items, None)] == [5]
    assert list(chunks([], None)) == []


def test_items_are_worked_on_level_by_level_and_counted(ray_of_two_cores, tmp_path):
    levels = {"c": 2, "a": 0, "b": 1}
    items = [Item(name, 3, (f"{name}.txt",), level=level) for name, level in levels.items()]
    runner = runner_of(write_after_the_level_below, tmp_path)
    runner.run(items)
    found = {name: (tmp_path / f"{name}.txt").read_text() for name in "abc"}
    assert found == {"a": "", "b": "a.txt", "c": "a.txt b.txt"}
    assert runner.advance.units == 9
    assert runner.nodes == {ray.get_runtime_context().get_node_id()}


def test_a_line_or_a_warning_of_many_items_is_shown_once(ray_of_two_cores, tmp_path, capsys):
    items = [Item(f"part-{number}", 1, ()) for number in range(4)]
    runner_of(warn, tmp_path).run(items)
    assert capsys.readouterr().err.splitlines() == ["a line for the user", "halved the batch"]


def test_each_item_leaves_a_log_file_with_its_warnings(ray_of_two_cores, tmp_path):
    items = [Item(f"part-{number}", 1, ()) for number in range(2)]
    runner_of(warn, tmp_path).run(items)
    for item in items:
        log = (tmp_path / "logs" / f"{item.key}.log").read_text(encoding="utf-8")
        assert "WARNING neuron_atlas.tasks.capture.capture: halved the batch" in log
        assert "WARNING other_package: of no concern to a user" in log
        assert log.splitlines()[-1].startswith("finished in ")


def test_a_defect_ends_in_one_line_that_names_the_log_with_its_traceback(
    ray_of_two_cores, tmp_path, capsys
):
    with pytest.raises(RunError) as caught:
        runner_of(fail, tmp_path).run([Item("part-7", 1, ())])
    path = tmp_path / "logs" / "part-7.log"
    status, message = exit_status_of(caught.value)
    assert status == 1
    assert message.splitlines() == [
        "unexpected error: ZeroDivisionError: a defect",
        f"traceback: {path}",
    ]
    log = path.read_text(encoding="utf-8")
    assert "Traceback (most recent call last)" in log
    assert log.rstrip().endswith("ZeroDivisionError: a defect")
    assert "Traceback" not in capsys.readouterr().err


def test_an_error_for_users_keeps_its_kind_and_names_the_log(ray_of_two_cores, tmp_path):
    with pytest.raises(SourceError) as caught:
        runner_of(fail_plainly, tmp_path).run([Item("part-7", 1, ())])
    status, message = exit_status_of(caught.value)
    assert status == 2
    assert message.splitlines() == [
        "data.path: no such folder",
        f"log: {tmp_path / 'logs' / 'part-7.log'}",
    ]
