"""log p(x|z) + log p(z) - log q(z|x): the models, their loss, and where they are built."""
