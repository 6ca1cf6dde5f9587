"""Linen modules and the functions made of them."""
