"""What moves in a crystal, by the calculator that relaxed it."""
