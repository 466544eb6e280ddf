"""Probe a finished run: show its subject one more image or text, and see which neurons fire."""
