"""The models log p(x|z) + log p(z) - log q(z|x), their loss, and their construction."""
