"""What each notebook asks: its question's figures, plots and answer, from recorded runs."""
