"""``python -m probekit``."""

from probekit.cli import main

main()
