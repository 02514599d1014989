"""Methods that exist only to be compared."""
