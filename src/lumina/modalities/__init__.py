"""How each kind of data becomes what a backbone reads, and back."""
