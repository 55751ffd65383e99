"""From a recorded run to a decision: how many workers, why, and how sure."""
