"""What identifies a subject's weights, wherever they lie."""

from __future__ import annotations

from neuron_atlas.tasks.models.pretrained import ModelError, weights_revision
from neuron_atlas.tasks.subject.settings import SubjectError, SubjectSettings


def subject_revision(settings: SubjectSettings) -> str:
    """The content hash of a folder, or the commit of a Hugging Face model. Raises SubjectError."""
    try:
        return weights_revision(settings.model, settings.revision, "subject.model")
    except ModelError as error:
        raise SubjectError(str(error)) from error
