"""The drug task: regimes x methods."""
