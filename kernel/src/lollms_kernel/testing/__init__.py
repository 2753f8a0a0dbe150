"""The test kit that ships with the kernel: live servers and the contract suites for plugin authors."""

from .binding_contract import BindingContract, make_binding
from .gpu_contract import GpuStrategyContract
from .server_process import ServerProcess
from .transport_contract import TransportContract

__all__ = ["BindingContract", "GpuStrategyContract", "ServerProcess", "TransportContract", "make_binding"]
