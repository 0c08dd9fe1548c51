"""The whole platform on one machine: `espalier up`, `down` and `status`. No daemon; every call looks for itself."""
