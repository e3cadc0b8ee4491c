"""Leagues: searches of several methods on equal budgets, whose winners are then compared.

Imports confirmation and the rooms below it. Does not import Ray.
"""
