"""One suite per hook kind, run over every implementation, ours and yours."""
