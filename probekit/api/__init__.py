"""The commands as functions: what ``import probekit`` offers, and what the command line is made of."""
