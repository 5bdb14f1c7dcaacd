"""What runs that are compared have measured, and what that says: for `compare` and `lab`."""
