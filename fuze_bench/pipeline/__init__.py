"""What is measured: save → queue → work → stored. Usable in a product with no lab installed."""
