"""Identify a subject's weights, independent of their location."""

from __future__ import annotations

from neuron_atlas.tasks.models.pretrained import ModelError, weights_revision
from neuron_atlas.tasks.subject.settings import SubjectError, SubjectSettings


def subject_revision(settings: SubjectSettings) -> str:
    """Return a folder's content hash, or a Hugging Face model's commit. Raises SubjectError."""
    try:
        return weights_revision(settings.model, settings.revision, "subject.model")
    except ModelError as error:
        raise SubjectError(str(error)) from error
