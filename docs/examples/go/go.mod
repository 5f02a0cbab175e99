module wstunnel-client

go 1.19
