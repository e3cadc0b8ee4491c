"""The only room that imports Ray: runs trials, confirmations and the rescoring of leaders on machines and clusters.

Imports confirmation and the rooms below it. Does not import reports.
"""
