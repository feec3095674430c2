"""What `cyroid-images doctor` looks at: every dependency in turn, what is wrong with it, what to do."""
