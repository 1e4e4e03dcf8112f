"""What the server does with the aggregated update."""

from hanse.server.optimizers import ServerAdagrad, ServerAdam, ServerSGD, ServerYogi

__all__ = ["ServerAdagrad", "ServerAdam", "ServerSGD", "ServerYogi"]
