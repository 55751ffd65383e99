"""Queues by calculation: replayed job by job, by textbook formulas, and by the scalability law."""
