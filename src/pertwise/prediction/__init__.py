"""The product: predict, explain, how good is it here, ask and store answers."""
