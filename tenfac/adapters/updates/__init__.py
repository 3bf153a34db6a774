"""The update of one weight: its structure, size, start and cost, and how it acts on a layer's input."""
