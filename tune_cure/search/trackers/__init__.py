"""Listeners of the journal that send a search to an experiment tracker; imports the rooms below search."""
