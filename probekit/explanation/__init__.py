"""Why: which words moved a prediction, what the model looked at, and whether it uses what a probe reads."""
