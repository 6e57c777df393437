"""A site that does nothing but write letters: postroom's side of the comparison."""
