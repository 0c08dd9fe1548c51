"""What other systems install to use Espalier: `espalier_client.grpc.connect` and the command `espalier`."""
