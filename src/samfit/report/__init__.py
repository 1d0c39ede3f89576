"""What people look at: scores and their tables, model cards, pictures, and the page of a comparison."""
