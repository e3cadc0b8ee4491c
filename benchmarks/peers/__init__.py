"""Other tools for hyperparameter search, each behind its public interface, under one simulated clock."""
