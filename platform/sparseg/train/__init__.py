"""The training loop, written out once, and what it carries from step to step.  No ray here."""
