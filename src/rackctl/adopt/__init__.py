"""Clusters that another tool created: find them, adopt them as racks."""
