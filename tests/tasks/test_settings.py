from dataclasses import dataclass

from neuron_atlas.tasks.classify.paper import PaperRule
from neuron_atlas.tasks.samples.scenes import Scenes
from neuron_atlas.tasks.settings import identity, not_hashed


@dataclass(frozen=True)
class Recipe:
    amount: int = 3
    threads: int = not_hashed(1)
    parts: tuple[Scenes, ...] = ()


@dataclass(frozen=True)
class OtherRecipe:
    amount: int = 3
    threads: int = not_hashed(1)
    parts: tuple[Scenes, ...] = ()


@dataclass(frozen=True)
class Stocked:
    stock: dict[str, int] = not_hashed(default_factory=dict)


def test_a_runtime_field_has_its_default_and_is_no_part_of_the_identity():
    assert Recipe().threads == 1
    assert identity(Recipe(threads=8)) == identity(Recipe())


def test_a_runtime_field_may_be_made_anew_for_each():
    one, other = Stocked(), Stocked()
    one.stock["salt"] = 1
    assert other.stock == {}
    assert identity(one) == identity(other)


def test_any_other_field_is_part_of_the_identity():
    assert identity(Recipe(amount=4)) != identity(Recipe())
    assert identity(PaperRule(t_text=2.5)) != identity(PaperRule())


def test_a_field_counts_however_deep_it_lies():
    a, b = (Recipe(parts=(Scenes(seed=seed),)) for seed in (1, 2))
    assert identity(a) != identity(b)
    assert identity({"recipes": [a]}) != identity({"recipes": [b]})


def test_two_classes_with_the_same_fields_differ():
    assert identity(Recipe()) != identity(OtherRecipe())


def test_the_identity_is_plain_data_that_says_what_it_is_of():
    assert identity(Recipe(parts=(Scenes(count=2),))) == {
        "class": f"{__name__}.Recipe",
        "amount": 3,
        "parts": [{"class": "tasks.samples.scenes.Scenes", "count": 2, "seed": 0, "size": 192}],
    }
