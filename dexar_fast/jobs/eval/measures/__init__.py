"""What is measured of an explained item, by name."""
