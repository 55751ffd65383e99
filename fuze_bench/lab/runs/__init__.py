"""What is recorded: the rows of a run and the folder that keeps them."""
