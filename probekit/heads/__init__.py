"""Heads: small torch modules on hidden states, their losses, and the loop that trains them."""
