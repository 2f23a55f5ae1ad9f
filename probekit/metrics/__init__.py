"""What a prediction is worth: every column of the table, and intervals for the two that choose."""
