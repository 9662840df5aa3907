"""LLMPert: an ensemble of small networks on features of perturbations."""
