"""Training: heads on cached states and with the backbone, held against scikit-learn, plain torch and fresh processes."""
