from dataclasses import replace

from PIL import Image

from bench.synthetic.samples import SingleColorSource
from neuron_atlas.tasks.report.settings import SiteSettings
from neuron_atlas.tasks.report.site.samples import BATCH, split_samples, write_samples
from tests.tasks.report.site.reading import value


def test_every_image_is_written_once_however_many_samples_have_it(made, tmp_path):
    class Same(SingleColorSource):
        def open_image(self, image):
            return super().open_image("#336699")

    samples = replace(made.samples, source=Same())
    write_samples(tmp_path, range(20), samples, SiteSettings())
    (path,) = (tmp_path / "images").rglob("*.webp")
    for sample_id in range(20):
        described = value(tmp_path, f"samples/0/{sample_id // 16}")[str(sample_id)]
        assert described["image"] == path.relative_to(tmp_path).as_posix()
    with Image.open(path) as image:
        assert image.size == (96, 96)


def test_a_large_image_is_made_smaller(made, tmp_path):
    write_samples(tmp_path, [0], made.samples, SiteSettings(image_px=32))
    (path,) = (tmp_path / "images").rglob("*.webp")
    with Image.open(path) as image:
        assert image.size == (32, 32)
    assert value(tmp_path, "samples/0/0")["0"]["size"] == [96, 96]


def test_a_sample_without_its_image_keeps_its_text_and_says_why(made, tmp_path):
    write_samples(tmp_path, [0, 1, 999], made.samples, SiteSettings())
    found = value(tmp_path, "samples/0/0")
    assert found["1"]["problem"] == "missing: no such file: <b>missing</b>"
    assert found["1"]["tokens"] == found["0"]["tokens"]
    assert "image" not in found["1"]
    assert value(tmp_path, "samples/0/62")["999"] == {
        "problem": "this sample is no longer listed as usable"
    }


def test_the_samples_of_a_file_are_of_one_work_item():
    batches = split_samples([5, BATCH, 3, BATCH * 2 - 1, 3])
    assert batches == [(3, 5), (BATCH, BATCH * 2 - 1)]
