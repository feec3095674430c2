"""What runs inside the stack's containers: all of `deploy` that the images ship."""
