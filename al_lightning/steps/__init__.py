"""What the learner's steps do; the learner itself reads as the story."""
