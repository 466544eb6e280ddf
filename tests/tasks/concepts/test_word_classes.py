import re

from neuron_atlas.tasks.concepts.word_classes import learn_word_classes
from neuron_atlas.tasks.samples.catalog import Sample
from neuron_atlas.tasks.samples.scenes import Scenes


def said(number: int, text: str) -> Sample:
    return Sample(number, "", (), text, tuple(re.findall(r"\s?\w+|\W", text)), (), 0, 0)


def test_words_between_the_same_neighbors_are_one_class():
    samples = [said(*one) for one in enumerate(r.text for r in Scenes(300, 5).records())]
    classes = learn_word_classes(samples)
    assert ("circle", "cross", "square", "star", "triangle") in classes
    assert ("black", "blue", "green", "orange", "purple", "red", "white", "yellow") in classes
    assert ("bottom", "top") in classes
    assert classes == sorted(set(classes))
    assert learn_word_classes(samples[::-1]) == classes


def test_without_texts_there_are_no_classes():
    assert learn_word_classes([]) == []
