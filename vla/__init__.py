"""Action tokenizers, models, training and the policy server."""
