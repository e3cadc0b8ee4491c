"""Export of one trained network: its folder, its measurements and its model card."""
