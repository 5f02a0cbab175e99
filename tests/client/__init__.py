"""The client: options, dialling, the relay."""
