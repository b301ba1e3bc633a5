"""The on-premise agent: HL7 v2 from the devices of one host to a Medplum-compatible server, and the answers back."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("onprem-agent")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0.0.0"
