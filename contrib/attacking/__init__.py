"""Attacks on real servents, and what honest people notice of them. Begun by contrib/hostile."""
