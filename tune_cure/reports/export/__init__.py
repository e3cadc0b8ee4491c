"""Export of one trained network: the folder, what was measured of it, and its model card."""
