"""Making and checking the records of the zoo."""
