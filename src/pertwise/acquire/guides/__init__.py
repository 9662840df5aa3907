"""From a panel to an order: guides of a library, controls, plates."""
