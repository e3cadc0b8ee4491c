import subprocess
import sys


def test_a_narrow_network_trains_at_odd_batches_with_several_threads() -> None:
    """In a process of its own: where oneDNN writes past its memory (issue 6035), no exception says so."""
    program = """
import torch
from tune_cure.models import networks
torch.set_num_threads(2)
network = networks.build("preact_resnet10", num_classes=10, in_channels=3, width=8)
network = network.to(memory_format=torch.channels_last)
for count in (29, 33, 85):
    images = torch.rand(count, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    for _ in range(5):
        network(images).logsumexp(1).sum().backward()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-500:]
