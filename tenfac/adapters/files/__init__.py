"""Adapters in files: our own, and those that PEFT and LyCORIS read."""
