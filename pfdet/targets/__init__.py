"""What each anchor and each region of interest must learn."""
