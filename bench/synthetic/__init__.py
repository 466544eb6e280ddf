"""A synthetic atlas: random numbers and words in the tables of a run."""
