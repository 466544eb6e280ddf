"""Words that say too little to find a neuron by."""

_WORDS = "a an and are as at by for from in is it its of on or that the this to with"
STOP_WORDS = frozenset(_WORDS.split())
