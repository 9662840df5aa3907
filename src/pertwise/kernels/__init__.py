"""Who is alike? Kernels between perturbations: genes, drugs, named lists, other screens."""
