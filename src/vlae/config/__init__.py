"""The settings of params.yaml as frozen, checked values."""
