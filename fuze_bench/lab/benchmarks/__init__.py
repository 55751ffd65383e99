"""How fast the product is: each figure a ratio to something else, measured side by side in one run."""
