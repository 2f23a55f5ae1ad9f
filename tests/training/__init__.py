"""Training: heads on cached states and with the backbone, against scikit-learn, plain torch and fresh processes."""
