"""The scripted model, over real HTTP."""
