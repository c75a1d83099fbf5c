"""The routes of models that make vectors and scores."""
