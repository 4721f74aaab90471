"""The SDK a framework uses, async and blocking."""
