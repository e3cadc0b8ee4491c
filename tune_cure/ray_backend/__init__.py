"""The only room that imports Ray: runs trials, confirmations and second judgements on machines and clusters.

Imports confirmation and the rooms below it. Does not import reports.
"""
