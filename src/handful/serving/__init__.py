"""Many adapted tasks as a product: stored, versioned, corrected, rolled back and erased."""
