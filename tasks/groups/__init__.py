"""What a subject loses without groups of neurons, and what it says when they are turned up."""
