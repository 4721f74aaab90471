"""Strict priority with ageing for edgerm: the most important role first."""
