"""What attempts measure and print: metric points and logs."""
