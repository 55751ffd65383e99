"""What is measured, and how a run goes: experiments, their factors, their trials, one after another."""
