"""Weighted Dominant Resource Fairness for edgerm."""
