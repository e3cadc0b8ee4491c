"""Data sets: found by `datasets`, decoded once by `prepared`, split by `splits`, batched on the device by `batches`.

Imports utils alone.
"""
