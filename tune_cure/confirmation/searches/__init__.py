"""Searches as a whole, compared by what they judged on validation images.

`comparison` says whose winner is better, `chance` whether a search found more than guesses, and `lead` when its winner
took the lead. It imports what the room `confirmation` may.
"""
