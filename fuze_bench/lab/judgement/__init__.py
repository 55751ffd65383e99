"""What may be said of a recorded run: verdicts, statistics, comparisons and their tables."""
