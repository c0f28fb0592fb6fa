"""Clusters that somebody else made: find them, and make racks of them."""
