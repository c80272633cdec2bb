"""Two lines keep chosen weights of your own torch module non-negative, here in a plain regression loop."""

import torch
from torch import nn

from ot_lift import Lift, mark_nonnegative


class ConvexNetwork(nn.Module):
    """Convex in x as long as the weights of the later layers are non-negative."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(2, 32), nn.Linear(32, 32), nn.Linear(32, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = nn.functional.softplus(self.fc1(x))
        return self.fc3(nn.functional.softplus(self.fc2(hidden)))


network = ConvexNetwork()
mark_nonnegative(network.fc2.weight, network.fc3.weight)  # line one
model = Lift(network, features=2)  # line two

generator = torch.Generator().manual_seed(0)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
for _ in range(300):  # nothing about constraints in here
    x = 2 * torch.randn(256, 2, generator=generator)
    loss = (model(x)[:, 0] - x.norm(dim=1)).square().mean()  # ‖x‖ is convex
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

plain = model.bake(x)  # a ConvexNetwork again, the weights written in
smallest = min(layer.weight.detach().min().item() for layer in (plain.fc2, plain.fc3))
print(f"loss {loss:.4f}, {type(plain).__name__} with smallest constrained weight {smallest:.2g}")
