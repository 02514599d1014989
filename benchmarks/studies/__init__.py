"""The paper's two side studies (the memory of a step, the alignment with the gradient), and what grows with n."""
