"""Guests in the training loops of other libraries."""
