"""The documentation as a site. `main`: the command. `hooks`: what MkDocs is told besides mkdocs.yml."""
