"""Which strategy fits a set of images: evidence measured on cached features, and the recommendation drawn from it."""
