"""What the stack makes in an AWS account, one component to a file. `components.platforms.eks` puts them together."""
