"""Data of training runs: what there is, what makes each batch, and what is computed once."""
