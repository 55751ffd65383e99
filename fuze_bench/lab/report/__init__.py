"""Notebooks executed, and their answers as pages and as a summary for machines."""
