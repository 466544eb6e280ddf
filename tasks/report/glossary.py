"""Explain the terms and the figures of the page, the site and the notebook, in a sentence each."""

from __future__ import annotations

from markupsafe import Markup

from neuron_atlas.tasks.report.verdict import MEANINGS

GLOSSARY = {
    "neuron": "One unit of the model, named by its layer and its index in that layer.",
    "layer": "One block of the language model; layer 0 is the first.",
    "type": "What a neuron responds to in most of its exemplars: visual, text, multi-modal or "
    "unknown.",
    "activation": "How strongly the neuron responds to one token: a patch of the image or a piece "
    "of the text.",
    "exemplar": "A sample of the dataset among those that activate the neuron most.",
    "peak": "The neuron's highest activation over the tokens of a sample.",
    "heat map": "Colors over the image that show the neuron's activation at each patch.",
    "explainer": "The author of an explanation: a model or a method that sees exemplars and says "
    "what the neuron responds to.",
    "simulator": "The model or method that reads only an explanation and predicts the neuron's "
    "activation at each token.",
    "score": "Signed correlation between a neuron's real activations and those predicted from its "
    "explanation, on samples that the explainer never saw, weighted to stand for the whole "
    "dataset: 1 is perfect, 0 is chance.",
    "control": "The same score for a prediction that should not work; an explanation has to beat "
    "the strongest control, the one with the highest score.",
    "other neuron": "A control: the score of another neuron's explanation.",
    "no words": "A control: the score of an explanation without words.",
    "no explanation": "A control: the score of a prediction from the neuron's mean activation at "
    "each position and the frequency of words.",
    "margin": "The score minus the highest of its controls, or minus 0 if all controls are lower.",
    "purity": "Whether the samples with the highest predictions are those where the neuron is "
    "active (average precision over the dataset): no higher than by chance, for a random ranking, "
    "if the explanation is too broad or wrong.",
    "recall": "Share of the samples where the neuron is active that the explanation predicts: low "
    "if it is too narrow or wrong.",
    "top and random": "The same correlation over as many exemplars as random samples, which "
    "hardly falls if an explanation is too broad.",
    "broader": "The score of the same explanation one level up, which claims more: the "
    "explanation is too narrow if it is no lower.",
    "narrower": "The score of the same explanation one level down, which claims less: the "
    "explanation is too broad if it is no lower.",
    "near miss": "A sample that the explanation predicts and that is not an exemplar.",
    "95 % interval": "Range of values from resampling the data: narrow if the number is certain, "
    "wide if it is not.",
    "q-value": "The smallest false discovery rate at which this explanation still beats every "
    "control, and chance, on other samples; small is good.",
    "calibration": "Samples, apart from the scored ones, on which predictions are put on the "
    "neuron's scale and thresholds are chosen.",
    "detection AUROC": "Chance that an exemplar gets a higher prediction than a random sample: "
    "1 is perfect, 0.5 is chance.",
    "concentration": "How unevenly an image activates the neuron: 0 for evenly, 1 for a single "
    "patch.",
    "monosemanticity": "How much the strong exemplars have in common, by the patches or the words "
    "at their peaks: 1 if all are alike, 0 if they are no more alike than any samples.",
    "meanings": "Unrelated groups that the strong exemplars form by the patches or the words at "
    "their peaks, whichever half of them is looked at.",
    "clarity": "How alike the embeddings at a neuron's peaks are, as the mean cosine of two: 1 "
    "if all are the same, 0 if they are no more alike than any.",
    "redundancy": "Cosine of a neuron with its nearest neuron, by the embeddings at their peaks: 1 "
    "if another neuron fires at the same things.",
    "loss": "How surprised the model is by a token of the description, in nats; the loss of a "
    "description is the mean over its tokens.",
    "effect": "First-order change of the description's loss when the neuron is zeroed, in nats: "
    "above 0 if the description needs the neuron.",
    "causal type": "The tokens through which a neuron acts on the description: visual, text, "
    "template, several (multi-modal) or none.",
    "faithfulness": "How much more the loss of the explanation's words rises than that of words "
    "that are as frequent, when the neuron is zeroed: above 0 if the neuron does what is said.",
    "agreement": "Chance that a word of the explanation gets a higher logit from the neuron than "
    "another word: 0.5 is chance.",
    "verdict": "How far a score shows that the explanation works: clear, weak or none.",
    **MEANINGS,
}
"""One sentence for each term."""

READING = {
    "score_scale": "Look for a dot (the score) right of the diamond (the strongest control), "
    "with a bar (the 95 % interval) that does not reach it.",
    "exemplars": "Look for what the colored patches and words of all samples have in common, and "
    "whether the explanation names it.",
    "held_out": "Look for the same patches and words colored in both: the closer the two, the "
    "better the explanation predicts the neuron.",
    "histogram": "Look for the role whose bars reach further to the right: the neuron responds "
    "most strongly there.",
    "by_layer": "Look for layers where a type or your search is frequent.",
    "by_score": "Look for neurons to the right of the middle line: their explanations predict "
    "better than chance.",
}
"""What to look for in each figure that is drawn for a neuron or above the table."""


def term(name: str, text: str = "", *, focusable: bool = True) -> Markup:
    """Return a term as `<abbr>` with its meaning as hover text. Raises KeyError.

    text: the words shown; the name by default. focusable: whether the Tab key reaches the term and
    shows its meaning. Leave it out where a term repeats for each neuron of a page.
    """
    tab_stop = Markup(' tabindex="0"') if focusable else ""
    return Markup('<abbr title="{}"{}>{}</abbr>').format(GLOSSARY[name], tab_stop, text or name)
