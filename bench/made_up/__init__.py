"""An atlas of made-up numbers and words, in the tables that a run would have left."""
