"""What people look at: overlays and sheets of them."""
