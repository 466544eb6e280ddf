import pytest

from bench.site_size import Shape, expected_bytes
from neuron_atlas.tasks.report.settings import SiteSettings
from tests.tasks.report.site.reading import value, write


def test_what_heat_maps_take_is_worked_out_from_the_shape(made, tmp_path):
    settings = {"exemplars": 6, "exemplars_of_unexplained": 1, "held_out": 4}
    site = write(made, tmp_path / "site", **settings)
    drawn = 0
    for chunk in (0, 1):
        for layer in (0, 1):
            for neuron in value(site, f"neurons/{layer}/{chunk}"):
                held = neuron["held_out"]
                rows = [row[3:] for row in neuron["exemplars"]]
                rows += [row[2:4] for row in held["samples"]]
                rows += [row[:2] for one in held["simulated"] for row in one["traces"]]
                drawn += sum(len(image) + len(text) for image, text in rows)
    shape = Shape(neurons=128, explained=112, explainers=2, visual=16, text=12)
    # So few tokens are padded to the next multiple of three.
    assert expected_bytes(shape, SiteSettings(**settings))["traces"] == pytest.approx(
        drawn, rel=0.08
    )


def test_a_site_grows_by_what_is_explained_and_not_by_what_is_not_shown():
    few, all_ = (
        expected_bytes(Shape(explained=count), SiteSettings()) for count in (1280, 352_256)
    )
    assert few["traces"] < all_["traces"] / 9
    bare = expected_bytes(Shape(), SiteSettings(exemplars_of_unexplained=0))
    assert bare["traces"] < few["traces"] / 20
    assert few["all"] == sum(size for name, size in few.items() if name != "all")
