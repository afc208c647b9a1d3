"""Autoregressive flow, used as prior p(z) or as IAF posterior q(z|x) (VLAE section 3.2).

`normalise` maps z to noise in one parallel pass: u_i = (z_i - m_i(z_<i)) exp(-s_i(z_<i)).
The prior z = f(eps) has log p(z) = log N(normalise(z)) + log_det. The same map applied to a
sample z0 of a diagonal Gaussian is an inverse autoregressive flow: z = normalise(z0), with
log q(z) = log N(z0) - log_det.
"""

import torch
from torch import Tensor, nn

from vlae.nn.containers import ModuleList
from vlae.nn.made import MADE

STEP_SCALE = 0.1  # makes each step start near the identity (openai/iaf)


class AutoregressiveFlow(nn.Module):
    """`steps` autoregressive transformations of (B, dim).

    The order of the variables is reversed between steps. Without `scale` the steps only shift
    (section 4.1), and the log-determinant is 0.

    >>> flow = AutoregressiveFlow(dim=3, steps=2, hidden=6, layers=2).double()
    >>> u = torch.randn(2, 3, dtype=torch.float64)
    >>> again, log_det = flow.normalise(flow.generate(u))
    >>> torch.allclose(again, u), log_det.tolist()
    (True, [0.0, 0.0])
    """

    def __init__(
        self,
        dim: int,
        steps: int,
        hidden: int,
        layers: int,
        scale: bool = False,
        context_dim: int = 0,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.scale = scale
        self.steps = ModuleList(
            MADE(dim, hidden, layers, 2 if scale else 1, context_dim, activation)
            for _ in range(steps)
        )

    def _shift_and_log_scale(
        self, made: MADE, z: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        parts = [STEP_SCALE * part.to(z.dtype) for part in made(z, context)]
        return parts[0], parts[1] if self.scale else None

    def normalise(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map z (B, dim) to noise u (B, dim); also return log |det du/dz| (B,), nats."""
        log_det = z.new_zeros(len(z))
        for i, made in enumerate(self.steps):
            if i:
                z = z.flip(1)
            shift, log_scale = self._shift_and_log_scale(made, z, context)
            z = z - shift
            if log_scale is not None:
                z = z * torch.exp(-log_scale)
                log_det = log_det - log_scale.sum(1)
        return z, log_det

    @torch.no_grad()
    def generate(self, u: Tensor, context: Tensor | None = None) -> Tensor:
        """Invert `normalise`, one variable at a time: noise (B, dim) -> z (B, dim)."""
        for step, made in reversed(list(enumerate(self.steps))):
            outputs = made.one_by_one(context, u)
            z = torch.zeros_like(u)
            for i in range(u.shape[1]):
                shift, *log_scale = (STEP_SCALE * part for part in outputs.outputs(i))
                value = u[:, i] * log_scale[0].exp() if self.scale else u[:, i]
                z[:, i] = value + shift
                outputs.set(i, z[:, i])
            u = z.flip(1) if step else z
        return u
