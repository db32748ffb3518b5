"""How each kind of data becomes what a backbone sees, and back to what a person can open."""
