"""One file for each thing that a person wants to make."""
