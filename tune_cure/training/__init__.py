"""Training of one network: configuration, trainer, losses, schedules, optimizers, weight averaging.

Imports evaluation and the rooms below it. Can be used without a search.
"""
