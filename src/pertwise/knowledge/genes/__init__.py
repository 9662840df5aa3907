"""What is known about genes: symbols, terms, graphs, features, texts."""
