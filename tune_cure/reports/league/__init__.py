"""Table and page of a league."""
