"""How many steps a learned optimizer needs where tuned ones need T."""
